create table items (id integer primary key, name text, price numeric)
insert into items select n, 'item ' || n, n * 1.25 from generate_series(1, 500) as n
create index on items (name)
select count(*), sum(price), max(length(name)) from items where name like '%7%'
select a.name, b.price from items a join items b on a.id = b.id + 1 order by b.price desc limit 5
select to_char(now() - now(), 'HH24'), regexp_replace(string_agg(name, ','), 'item', 'x') from items
explain select * from items where id between 10 and 20
update items set price = price * 2 where id % 10 = 0
drop table items
