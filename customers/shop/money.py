"""Money as whole minor units (such as cents) of a currency, so that sums are exact."""

from decimal import ROUND_HALF_EVEN, Decimal

_TWO_DIGITS = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD
CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA
MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR
RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD
TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
_NO_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DIGITS = "CLF UYW"

# ISO 4217: how many decimals a currency has.
EXPONENTS: dict[str, int] = {
    code: digits
    for digits, codes in ((2, _TWO_DIGITS), (0, _NO_DIGITS), (3, _THREE_DIGITS), (4, _FOUR_DIGITS))
    for code in codes.split()
}


def to_minor_units(amount: Decimal | str, currency: str) -> int:
    """An amount in whole minor units of its currency; a half is rounded to the even neighbour."""
    scaled = Decimal(amount).scaleb(EXPONENTS[currency])
    return int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN))


def format_amount(minor_units: int, currency: str) -> str:
    """Minor units as a decimal string in the currency's main unit: 1250 EUR is "12.50"."""
    return str(Decimal(minor_units).scaleb(-EXPONENTS[currency]))
