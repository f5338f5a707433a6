//! A name whose address changes between two requests: what an attacker's DNS server does.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use futures::future::BoxFuture;
use orchestrator_engine::clock::SystemClock;
use orchestrator_engine::id::RunId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;

/// Says the first address once, and then always the second; counts how often it is asked.
struct Changing(AtomicUsize, [IpAddr; 2]);

impl Lookup for Changing {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let asked = self.0.fetch_add(1, Ordering::SeqCst);
        let answer = self.1[asked.min(1)];
        async move { Ok(vec![answer]) }.boxed()
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_gains_nothing() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // No connection is kept, so each request asks for the address.
    let page = get(|| async { ([(header::CONNECTION, "close")], "in") });
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", page)).await });
    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()];
    let changing = Arc::new(Changing(AtomicUsize::new(0), addresses));
    let tool = HttpRequest::with_lookup(
        "127.0.0.1".parse().unwrap(),
        &(Arc::clone(&changing) as Arc<dyn Lookup>),
        Arc::new(SystemClock),
    )
    .unwrap();
    let request = || {
        tool.call(ToolCall {
            address: ADDRESS.to_owned(),
            input: json!({"url": format!("http://rebind.example:{port}/")}),
            timeout: Duration::from_secs(30),
            idempotency_key: "key".to_owned(),
            run_id: RunId(uuid::Uuid::nil()),
            trace: None,
            cancel: CancellationToken::new(),
        })
    };

    let first = request().await.unwrap();
    let asked = changing.0.load(Ordering::SeqCst);
    let second = request().await.unwrap_err();

    assert_eq!(first["body"], "in");
    assert_eq!(asked, 1, "what was checked was connected to, without asking again");
    let said = second.to_string();
    assert!(said.contains("address 127.0.0.2 of host rebind.example is private"), "{said}");
}
