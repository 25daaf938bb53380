//! How a token in the request target becomes a client id.

use support::{Backend, Device};

use crate::common::{alone, forwarding};

#[tokio::test]
async fn a_token_is_decoded_as_a_form_is_and_is_the_client_id() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    for (number, (target, client_id)) in [
        ("/?token=dev1", "dev1"),
        ("/token=dev2", "dev2"),
        ("/any/path/at/all?token=dev3", "dev3"),
        ("/any?a=1&token=dev4&b=2", "dev4"),
        ("/?token=first&token=second", "first"),
        ("/?token=a+b%20c%2Bd", "a b c+d"),
        ("/?%74oken=spelt", "spelt"),
        ("/?token=x%ffy%c3", "x\u{fffd}y\u{fffd}"),
        ("/?token=%F0%9F%94%8C", "\u{1f50c}"),
        ("/?token=a%3Ab:c", "a:b:c"),
        ("/?token=100%", "100%"),
        ("/?token=%2F%3F%26%3D%00%0A", "/?&=\0\n"),
        ("/?token=*", "*"),
        ("/?token=a;b", "a;b"),
        ("/?token=null", "null"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut device = Device::request(gateway.addr(), target, &[]).await.unwrap();
        device.send("hello").await;
        let all = backend.wait_for(number + 1).await;
        assert_eq!(all[number].client_id, client_id, "{target}");
    }
}

#[tokio::test]
async fn without_a_token_it_answers_401() {
    let gateway = alone().start().await;
    for target in [
        "/",
        "/?token",
        "/?token=",
        "/token=",
        "/?token=&token=x",
        "/?Token=x",
        "/?tokens=x",
        "/path/token=x",
        "/?a=token=x",
    ] {
        let refused = Device::request(gateway.addr(), target, &[]).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{target}"));
        assert_eq!(refused.status, 401, "{target}");
        assert_eq!(refused.headers["connection"], "close");
    }
}
