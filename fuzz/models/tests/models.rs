//! Each model of `../../inside/models.rs` in thousands of orders, by chance and by shuttle's PCT, which seeks the rare ones.

use fastsock_models::inside::models;

macro_rules! in_many_orders {
    ($($name:ident;)*) => {$(
        #[test]
        fn $name() {
            shuttle::check_random(models::$name, ORDERS);
            shuttle::check_pct(models::$name, ORDERS, 3);
        }
    )*};
}

in_many_orders! {
    a_host_that_takes_uplinks_hears_each_once_and_in_order;
    closing_leaves_no_question_open;
    each_send_has_one_result;
    a_takeover_loses_and_repeats_nothing;
    a_takeover_of_a_session_that_ends_balances_the_books;
}

const ORDERS: usize = 2000;
