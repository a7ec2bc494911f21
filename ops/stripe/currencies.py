"""What can be charged: https://docs.stripe.com/currencies."""

from typing import Final

THREE_DECIMALS: Final = frozenset("bhd jod kwd omr tnd".split())
"""Charged in steps of ten of the minor unit."""

PRESENTABLE: Final = THREE_DECIMALS | frozenset(
    (
        "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bif bmd bnd bob brl bsd bwp byn bzd cad cdf "
        "chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl "
        "htg huf idr ils inr isk jmd jpy kes kgs khr kmf krw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk "
        "mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub "
        "rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv "
        "wst xaf xcd xof xpf yer zar zmw"
    ).split()
)
"""Currencies that a card can be charged in, in lower case as Stripe writes them."""

MAX_AMOUNT: Final = 99_999_999
"""Eight digits, in the minor unit."""
