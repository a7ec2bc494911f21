"""The currencies and amounts that can be charged: https://docs.stripe.com/currencies."""

from typing import Final

THREE_DECIMALS: Final = frozenset("bhd jod kwd omr tnd".split())
"""Amounts in these are multiples of ten minor units."""

PRESENTABLE: Final = THREE_DECIMALS | frozenset(
    (
        "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bif bmd bnd bob brl bsd bwp byn bzd cad cdf "
        "chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl "
        "htg huf idr ils inr isk jmd jpy kes kgs khr kmf krw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk "
        "mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub "
        "rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv "
        "wst xaf xcd xcg xof xpf yer zar zmw"
    ).split()
)
"""Currencies that a card can be charged in, in lower case as Stripe writes them."""

MIN_AMOUNTS: Final = {
    **dict.fromkeys("ars aud brl cad chf cop eur idr ils inr jpy krw nzd php rub sgd usd zar".split(), 50),
    "aed": 200,
    "czk": 1500,
    "dkk": 250,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "thb": 1000,
}
"""The smallest charges, for an account that is paid out in the same currency."""


def max_amount(currency: str) -> int:
    """Returns the largest charge in the minor unit: twelve digits for IDR, eight for others."""
    return 999_999_999_999 if currency == "idr" else 99_999_999
