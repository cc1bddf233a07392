"""Validation of columns as SQL expressions, for millions of rows at a time.

A row goes through three steps: its texts are trimmed, then parsed, then checked. Each ColumnCheck gives a column, how
its text is parsed, the value to store, and the reasons to reject a row. The checks of each record kind are in its
`load_*` file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from customers.loading.sql_text import quote_identifier, quote_literal
from customers.shop import money

# Above this, two neighbouring whole numbers may be the same float.
MAX_MINOR = 9 * 10**15
# A source, an order id and a line id together must fit into one entry of a PostgreSQL index, 2,704 bytes.
MAX_ID_LENGTH = 200
# Wide enough for any price, and narrow enough for 64-bit arithmetic.
DECIMAL_TYPE = "decimal(18, 6)"
TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?( ?([zZ]|[+-]\d{2}(:?\d{2})?))?)?$"
OFFSET_PATTERN = r"\d{2}:\d{2}.*([zZ]|[+-]\d{2}(:?\d{2})?)$"


@dataclass(frozen=True, slots=True)
class ColumnCheck:
    """SQL for one column: `parsed_columns` (alias, expression over the trimmed texts), `value` over those.

    `rejections` are (condition, reason).
    """

    name: str
    value: str
    rejections: tuple[tuple[str, str], ...] = ()
    parsed_columns: tuple[tuple[str, str], ...] = ()


def validation_query(checks: Sequence[ColumnCheck], columns: Sequence[str], clean_columns: Collection[str] = ()) -> str:
    """The query from `raw` to columns file_no, row_no, the values, `reason` (null for a valid row) and is_repeat.

    The texts of `clean_columns` need no trimming.
    """
    texts = ", ".join(
        quote_identifier(name) if name in clean_columns else f"{trimmed(name)} as {quote_identifier(name)}"
        for name in columns
    )
    parsed = "".join(f", {expression} as {alias}" for check in checks for alias, expression in check.parsed_columns)
    values = ", ".join(f"{check.value} as {quote_identifier(check.name)}" for check in checks)
    cases = " ".join(f"when {condition} then '{reason}'" for check in checks for condition, reason in check.rejections)
    return f"""select file_no, row_no, {values}, case {cases} end as reason, false as is_repeat
               from (select *{parsed} from (select file_no, row_no, {texts} from raw))"""


def trimmed(name: str) -> str:
    """SQL for a raw column's text without surrounding blanks; empty is null."""
    return f"nullif(trim(replace({quote_identifier(name)}, chr(0), '')), '')"


def any_text(name: str) -> ColumnCheck:
    """Any text, also none."""
    return ColumnCheck(name, quote_identifier(name))


def identifier(name: str) -> ColumnCheck:
    """A required id of at most MAX_ID_LENGTH characters."""
    return ColumnCheck(
        name,
        quote_identifier(name),
        ((f"{quote_identifier(name)} is null", f"{name} is empty"), *reference(name).rejections),
    )


def reference(name: str) -> ColumnCheck:
    """An optional id of at most MAX_ID_LENGTH characters."""
    too_long = (
        f"length({quote_identifier(name)}) > {MAX_ID_LENGTH}",
        f"{name} is longer than {MAX_ID_LENGTH} characters",
    )
    return ColumnCheck(name, quote_identifier(name), (too_long,))


def choice(name: str, allowed: Sequence[str], default: str | None = None) -> ColumnCheck:
    """One of `allowed`, in any case; `default` where empty."""
    column = f"lower({quote_identifier(name)})"
    allowed_list = ", ".join(quote_literal(word) for word in allowed)
    value = f"coalesce({column}, {quote_literal(default)})" if default else column
    return ColumnCheck(name, value, ((f"{column} not in ({allowed_list})", f"{name} is none of {', '.join(allowed)}"),))


def number(name: str, *, required: bool = False) -> ColumnCheck:
    """A finite decimal number, as a double."""
    parsed = f"{name}__p"
    return ColumnCheck(
        name,
        f"{parsed}::double",
        _parse_rejections(name, parsed, "a number", required),
        ((parsed, f"try_cast({quote_identifier(name)} as {DECIMAL_TYPE})"),),
    )


def amount(name: str, *, required: bool = False, negative: bool = True) -> ColumnCheck:
    """An amount, stored as {name}_minor in minor units of the row's currency (see `currency`); halves round to even."""
    parsed = f"{name}__p"
    scaled = f"({parsed} * currency__units)"
    rejections = _parse_rejections(name, parsed, "an amount", required)
    rejections += ((f"abs({scaled}) > {MAX_MINOR}", f"{name} is too large"),)
    if not negative:
        rejections += ((f"{parsed} < 0", f"{name} is negative"),)
    value = f"try_cast({round_half_even(scaled)} as bigint)"
    return ColumnCheck(
        f"{name}_minor",
        value,
        rejections,
        ((parsed, f"try_cast({_truncate_decimals(quote_identifier(name))} as {DECIMAL_TYPE})"),),
    )


def _truncate_decimals(column: str) -> str:
    """SQL that cuts a number with more than six decimals to six, which round to minor units as the full number would.

    No currency has more than four decimals: the fifth digit decides about a half, and the sixth only has to be non-zero
    where any digit after the fifth is. Rounding to six and then to minor units would round twice.
    """
    sixth_digit = f"case when regexp_matches({column}, '^[+-]?\\d*\\.\\d{{5}}0*$') then '0' else '1' end"
    truncated = f"concat(regexp_extract({column}, '^[+-]?\\d*\\.\\d{{5}}'), {sixth_digit})"
    is_long = f"length({column}) > 7 and regexp_matches({column}, '^[+-]?\\d*\\.\\d{{7,}}$')"
    return f"case when {is_long} then {truncated} else {column} end"


def round_half_even(value: str) -> str:
    """SQL that rounds a decimal to a whole number; a half goes to the even neighbour."""
    is_tie_to_even = f"abs({value} - trunc({value})) = 0.5 and trunc({value}) % 2 = 0"
    return f"(case when {is_tie_to_even} then trunc({value}) else round({value}) end)"


def currency(default: str) -> ColumnCheck:
    """The code in column `currency`, else `default`; must be in ISO 4217.

    Also parses currency__units, the minor units per main unit that `amount` needs.
    """
    code = f"coalesce(upper(currency), {quote_literal(default)})"
    codes_by_exponent: dict[int, list[str]] = {}
    for currency_code, exponent in money.EXPONENTS.items():
        codes_by_exponent.setdefault(exponent, []).append(quote_literal(currency_code))
    cases = [
        f"when {code} in ({', '.join(codes)}) then {10**exponent}" for exponent, codes in codes_by_exponent.items()
    ]
    return ColumnCheck(
        "currency",
        "currency__p",
        (("currency__units is null", "currency is not an ISO 4217 code"),),
        (("currency__p", code), ("currency__units", f"(case {' '.join(cases)} end)::decimal(5, 0)")),
    )


def instant(name: str, timezone: str, *, required: bool = False) -> ColumnCheck:
    """An ISO 8601 time as microseconds since 1970 in UTC; one without an offset is in `timezone`."""
    column, parsed = quote_identifier(name), f"{name}__p"
    with_offset = f"try_cast({column} as timestamptz)"
    in_zone = f"timezone({quote_literal(timezone)}, try_cast({column} as timestamp))"
    parsed_time = (
        f"case when regexp_matches({column}, {quote_literal(OFFSET_PATTERN)}) then {with_offset} else {in_zone} end"
    )
    value = f"case when regexp_matches({column}, {quote_literal(TIME_PATTERN)}) then epoch_us({parsed_time}) end"
    return ColumnCheck(name, parsed, _parse_rejections(name, parsed, "an ISO 8601 time", required), ((parsed, value),))


def iso_date(name: str) -> ColumnCheck:
    """A date, stored as its ISO text."""
    parsed = f"{name}__p"
    value = f"strftime(try_cast({quote_identifier(name)} as date), '%Y-%m-%d')"
    return ColumnCheck(name, parsed, _parse_rejections(name, parsed, "a date", False), ((parsed, value),))


def flag(name: str) -> ColumnCheck:
    """True or false; false where empty."""
    column = f"lower({quote_identifier(name)})"
    yes, no = "('true', '1', 'yes', 't', 'y')", "('false', '0', 'no', 'f', 'n')"
    rejections = ((f"{column} not in {yes} and {column} not in {no}", f"{name} is neither true nor false"),)
    return ColumnCheck(name, f"coalesce({column} in {yes}, false)", rejections)


def json_object(name: str) -> ColumnCheck:
    """A JSON object, stored as its text."""
    column = quote_identifier(name)
    is_object = f"case when json_valid({column}) then json_type({column}) = 'OBJECT' else false end"
    is_invalid = f"{column} is not null and not ({is_object})"
    return ColumnCheck(name, column, ((is_invalid, f"{name} is not an object"),))


def text_list(name: str, allowed: Sequence[str] = ()) -> ColumnCheck:
    """A list of texts, as JSON or separated by semicolons: distinct and sorted; an empty value is an empty list."""
    column, parsed = quote_identifier(name), f"{name}__p"
    is_list = f"case when json_valid({column}) then json_type({column}) = 'ARRAY' else false end"
    parts = f"""case when {is_list} then from_json({column}, '["VARCHAR"]') else string_split({column}, ';') end"""
    texts = f"list_filter([trim(part) for part in {parts}], lambda part: part <> '')"
    parsed_list = f"coalesce(list_sort(list_distinct({texts})), [])"
    if not allowed:
        too_long = f"len(list_filter({parsed}, lambda part: length(part) > {MAX_ID_LENGTH})) > 0"
        rejection = (too_long, f"{name} has a part longer than {MAX_ID_LENGTH} characters")
        return ColumnCheck(name, parsed, (rejection,), ((parsed, parsed_list),))
    parsed_list = f"coalesce(list_sort(list_distinct([lower(part) for part in {texts}])), [])"
    allowed_list = ", ".join(quote_literal(word) for word in allowed)
    rejection = (
        f"not list_has_all([{allowed_list}], {parsed})",
        f"{name} has something other than {', '.join(allowed)}",
    )
    return ColumnCheck(name, parsed, (rejection,), ((parsed, parsed_list),))


def integer_between(name: str, lowest: int, highest: int) -> ColumnCheck:
    """A whole number from `lowest` to `highest`, or none."""
    parsed = f"{name}__p"
    parsed_number = f"try_cast({quote_identifier(name)} as {DECIMAL_TYPE})"
    is_in_range = f"{parsed} between {lowest} and {highest} and {parsed} = trunc({parsed})"
    is_invalid = f"{quote_identifier(name)} is not null and not coalesce({is_in_range}, false)"
    reason = f"{name} is not a whole number from {lowest} to {highest}"
    return ColumnCheck(name, f"{parsed}::integer", ((is_invalid, reason),), ((parsed, parsed_number),))


def past_instant(name: str, timezone: str, *, latest: int, required: bool = False) -> ColumnCheck:
    """As `instant`, from 1970 to `latest` (microseconds since 1970)."""
    check = instant(name, timezone, required=required)
    too_late = (f"{check.value} > {latest}", f"{name} is in the future")
    too_early = (f"{check.value} < 0", f"{name} is before 1970")
    return ColumnCheck(name, check.value, (*check.rejections, too_late, too_early), check.parsed_columns)


def _parse_rejections(name: str, parsed: str, type_name: str, required: bool) -> tuple[tuple[str, str], ...]:
    column = quote_identifier(name)
    rejections = ((f"{column} is not null and {parsed} is null", f"{name} is not {type_name}"),)
    return ((f"{column} is null", f"{name} is empty"), *rejections) if required else rejections
