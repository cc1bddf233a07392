-- The features once more, as written by hand for DuckDB: baskets, then customer-days, then one join with the cutoffs.
-- The tests compare every column with it, and the speed benchmark compares the time.
-- {lines}, {products}: tables or table functions; {before} is <, or <= where as_of cuts a day and is the only cutoff.
-- {timezone} and {as_of} are the shop's zone and the run's as_of; cutoffs(as_of, as_of_day) is a table.
with visible_lines as materialized (
  select customer_key, order_key, product_key, sold_at, quantity, amount, discount, kind, coalesce(store_id, '') store,
         datediff('day', date '1970-01-01', timezone('{timezone}', sold_at)::date) as day
  from {lines}
  where customer_key is not null and known_at < {as_of} and sold_at < {as_of}
    and (superseded_at is null or superseded_at >= {as_of})
),
bought as materialized (
  select k.*, coalesce(p.department, '') department, coalesce(p.category, '') category, coalesce(p.brand, '') brand
  from visible_lines k left join {products} p using (product_key)
  where kind = 'sale' and quantity > 0
),
baskets as (
  select customer_key, order_key, day,
         coalesce(sum(amount) filter (where kind = 'sale'), 0) sales,
         coalesce(sum(abs(amount)) filter (where kind = 'return'), 0) returned,
         coalesce(sum(discount) filter (where kind = 'sale'), 0) saved,
         coalesce(sum(quantity) filter (where kind = 'sale'), 0) pieces,
         count(*) filter (where kind = 'sale') as n_lines,
         count(*) filter (where kind = 'sale' and quantity > 0) as n_bought,
         count(*) filter (where kind = 'sale' and amount is null) as unpriced
  from visible_lines group by all
),
totals as (
  select customer_key, day, sum(sales) sales, sum(returned) returned, sum(saved) saved, sum(pieces) pieces,
         sum(n_lines) n_lines, sum(n_bought) n_bought, sum(unpriced) unpriced,
         sum(sales) - sum(returned) as spend, sum(sales * sales) squares, count(*) filter (where n_lines > 0) n_baskets
  from baskets group by all
),
firsts as (
  select customer_key, day, count(*) new_products
  from (select customer_key, product_key, min(day) as day from bought group by all) group by all
),
days as materialized (
  select t.*, coalesce(f.new_products, 0) new_products, round(spend, 6) > 0 or unpriced > 0 as purchase,
         case when purchase then t.day end as visit_day,
         case when purchase then t.day - lag(t.day) over (partition by t.customer_key, purchase order by t.day) end gap
  from (select *, round(spend, 6) > 0 or unpriced > 0 as purchase from totals) t
  left join firsts f using (customer_key, day)
),
visible_days as (select d.*, m.as_of, m.as_of_day, m.as_of_day - d.day as age from days d join cutoffs m on d.day {before} m.as_of_day),
sums as (
  select customer_key, as_of, any_value(as_of_day) as as_of_day,
    min(age) filter (where purchase) recency, max(age) filter (where purchase) tenure,
    count(*) filter (where purchase) n, min(visit_day) first_day, max(visit_day) last_day,
    count(distinct (visit_day + 3) // 7) as n_weeks, count(gap) gaps, avg(gap) gap_mean, stddev_pop(gap) gap_std,
    quantile_cont(gap, 0.5) gap_median, quantile_cont(gap, 0.8) gap_long, max(gap) gap_max, arg_max(gap, day) gap_last,
    avg(gap) filter (where age <= 90) gap_recent,
    count(*) filter (where purchase and age <= 7) n7, count(*) filter (where purchase and age <= 14) n14,
    count(*) filter (where purchase and age <= 28) n28, count(*) filter (where purchase and age <= 56) n56,
    count(*) filter (where purchase and age <= 90) n90,
    count(*) filter (where purchase and age > 28 and age <= 56) n28b,
    count(*) filter (where purchase and age > 90 and age <= 180) n90b,
    sum(0.5 ** (age / 14.0)) filter (where purchase) f14, sum(0.5 ** (age / 45.0)) filter (where purchase) f45,
    sum(0.5 ** (age / 120.0)) filter (where purchase) f120,
    count(*) filter (where purchase and (day + 3) % 7 = 0) d0, count(*) filter (where purchase and (day + 3) % 7 = 1) d1,
    count(*) filter (where purchase and (day + 3) % 7 = 2) d2, count(*) filter (where purchase and (day + 3) % 7 = 3) d3,
    count(*) filter (where purchase and (day + 3) % 7 = 4) d4, count(*) filter (where purchase and (day + 3) % 7 = 5) d5,
    count(*) filter (where purchase and (day + 3) % 7 = 6) d6,
    sum(spend) spend, max(spend) spend_max, arg_max(spend, visit_day) spend_last, sum(n_baskets) baskets,
    sum(sales) sales, sum(squares) squares, arg_max(sales, visit_day) sales_last,
    arg_max(n_baskets, visit_day) baskets_last, sum(n_lines) n_lines, arg_max(n_lines, visit_day) lines_last,
    sum(pieces) pieces, sum(saved) saved, sum(returned) returned, count(*) filter (where returned > 0) return_days,
    coalesce(sum(saved) filter (where age <= 90), 0) saved90, coalesce(sum(sales) filter (where age <= 90), 0) sales90,
    coalesce(sum(spend) filter (where age <= 7), 0) s7, coalesce(sum(spend) filter (where age <= 28), 0) s28,
    coalesce(sum(spend) filter (where age <= 90), 0) s90,
    coalesce(sum(spend) filter (where age > 7 and age <= 14), 0) s7b,
    coalesce(sum(spend) filter (where age > 28 and age <= 56), 0) s28b,
    coalesce(sum(spend) filter (where age > 90 and age <= 180), 0) s90b,
    sum(spend * 0.5 ** (age / 14.0)) w14, sum(spend * 0.5 ** (age / 45.0)) w45, sum(spend * 0.5 ** (age / 120.0)) w120,
    sum(new_products) products, sum(n_bought) n_bought, coalesce(sum(new_products) filter (where age <= 28), 0) new_products28,
    coalesce(sum(new_products) filter (where age <= 90), 0) new_products90,
    coalesce(sum(n_bought) filter (where age <= 28), 0) bought28
  from visible_days group by customer_key, as_of having count(*) filter (where purchase) > 0
),
department_mix as (
  select customer_key, as_of, count(*) variety, max(w) / nullif(sum(w), 0) top,
         greatest(ln(nullif(sum(w), 0)) - coalesce(sum(w * ln(nullif(w, 0))), 0) / nullif(sum(w), 0), 0) entropy
  from (select customer_key, as_of, department, sum(w) w
        from (select customer_key, day, department, coalesce(sum(amount), 0) w from bought group by all)
        join cutoffs on day {before} as_of_day group by all) group by all
),
category_mix as (
  select customer_key, as_of, count(*) variety, max(w) / nullif(sum(w), 0) top,
         greatest(ln(nullif(sum(w), 0)) - coalesce(sum(w * ln(nullif(w, 0))), 0) / nullif(sum(w), 0), 0) entropy
  from (select customer_key, as_of, category, sum(w) w
        from (select customer_key, day, category, coalesce(sum(amount), 0) w from bought group by all)
        join cutoffs on day {before} as_of_day group by all) group by all
),
brand_mix as (
  select customer_key, as_of, count(*) variety, max(w) / nullif(sum(w), 0) top,
         greatest(ln(nullif(sum(w), 0)) - coalesce(sum(w * ln(nullif(w, 0))), 0) / nullif(sum(w), 0), 0) entropy
  from (select customer_key, as_of, brand, sum(w) w
        from (select customer_key, day, brand, coalesce(sum(amount), 0) w from bought group by all)
        join cutoffs on day {before} as_of_day group by all) group by all
),
store_mix as (
  select customer_key, as_of, count(*) variety, max(w) / nullif(sum(w), 0) top,
         greatest(ln(nullif(sum(w), 0)) - coalesce(sum(w * ln(nullif(w, 0))), 0) / nullif(sum(w), 0), 0) entropy
  from (select customer_key, as_of, store, sum(w) w
        from (select customer_key, day, store, coalesce(sum(amount), 0) w from bought group by all)
        join cutoffs on day {before} as_of_day group by all) group by all
)
select s.customer_key, s.as_of as event_timestamp,
  recency as recency_days, tenure as tenure_days, n as purchase_days, last_day - first_day as span_days,
  n / tenure as purchase_rate, n_weeks / ((s.as_of_day + 3) // 7 - (first_day + 3) // 7 + 1) as active_weeks_share,
  (s.as_of_day + 3) % 7 as as_of_weekday, gap_mean as gap_mean_days,
  case when gaps > 1 then gap_std end as gap_std_days, case when gaps > 1 then gap_std / gap_mean end as gap_cv,
  gap_median as gap_median_days, gap_long as gap_long_days, gap_max as gap_max_days, gap_last as gap_last_days,
  gap_recent as gap_recent_days, gap_recent / gap_mean as gap_trend, gap_last / gap_mean as gap_last_ratio,
  recency / gap_median as overdue_ratio, recency / gap_mean as overdue_mean_ratio,
  recency / gap_long as overdue_long_ratio, recency / gap_max as overdue_max_ratio,
  n7 as purchase_days_7d, n14 as purchase_days_14d, n28 as purchase_days_28d, n56 as purchase_days_56d,
  n90 as purchase_days_90d, n28b as purchase_days_28d_before, n90b as purchase_days_90d_before,
  f14 as purchase_days_decayed_14d, f45 as purchase_days_decayed_45d, f120 as purchase_days_decayed_120d,
  d0 / n as weekday_0_share, d1 / n as weekday_1_share, d2 / n as weekday_2_share, d3 / n as weekday_3_share,
  d4 / n as weekday_4_share, d5 / n as weekday_5_share, d6 / n as weekday_6_share,
  spend as spend_total, spend / n as spend_day_mean, spend_max as spend_day_max, spend_last as spend_day_last,
  spend_last / nullif(spend / n, 0) as spend_last_ratio, baskets as baskets_total,
  sales / nullif(baskets, 0) as basket_value_mean,
  case when baskets > 1 then sqrt(greatest(squares / baskets - (sales / baskets) ** 2, 0)) end as basket_value_std,
  sales_last / nullif(baskets_last, 0) as basket_value_last, n_lines / nullif(baskets, 0) as basket_lines_mean,
  lines_last / nullif(baskets_last, 0) as basket_lines_last, pieces / nullif(baskets, 0) as basket_pieces_mean,
  baskets / n as baskets_per_day, saved / nullif(sales + saved, 0) as discount_share,
  saved90 / nullif(sales90 + saved90, 0) as discount_share_90d, returned / nullif(sales, 0) as return_share,
  return_days, s7 as spend_7d, s28 as spend_28d, s90 as spend_90d, s7b as spend_7d_before, s28b as spend_28d_before,
  s90b as spend_90d_before, s28 / nullif(s28 + s28b, 0) as spend_trend_28d, s90 / nullif(s90 + s90b, 0) as spend_trend_90d,
  w14 as spend_decayed_14d, w45 as spend_decayed_45d, w120 as spend_decayed_120d,
  products as products_count, products / n as products_per_day,
  (n_bought - products) / nullif(n_bought, 0) as repeat_share,
  (bought28 - new_products28) / nullif(bought28, 0) as repeat_share_28d,
  new_products28 as products_new_28d, new_products90 as products_new_90d,
  coalesce(d.variety, 0) as department_count, coalesce(c.variety, 0) as category_count,
  coalesce(b.variety, 0) as brand_count, coalesce(o.variety, 0) as store_count,
  d.top as department_top_share, c.top as category_top_share, b.top as brand_top_share, o.top as store_top_share,
  d.entropy as department_entropy, c.entropy as category_entropy, b.entropy as brand_entropy, o.entropy as store_entropy
from sums s
left join department_mix d using (customer_key, as_of)
left join category_mix c using (customer_key, as_of)
left join brand_mix b using (customer_key, as_of)
left join store_mix o using (customer_key, as_of)
order by event_timestamp, customer_key
