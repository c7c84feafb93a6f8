//! A writer that another deposed: Consul itself refuses whatever it still sends.

use futures::{StreamExt, stream};

use super::*;
use crate::ports::TxnError;

const ATTEMPTS: usize = 10_000;

#[tokio::test]
async fn of_ten_thousand_late_writes_consul_takes_none() {
    let server = server::Consul::start(&[]).await;
    let consul = adapter(&server, None);
    register(&consul).await;
    let (late, before) = (fence(&consul).await, consul.node(NODE).await.unwrap());
    let next = Epoch { epoch: 2, holder: "another".into(), ..Epoch::default() };
    assert!(consul.swap_epoch(Some(late), &next).await.unwrap());
    let write = |n: usize| {
        let (id, name) = ("demo-1".to_owned(), "user.service".to_owned());
        match n % 4 {
            0 => vec![CatalogOp::Register(entry(&format!("late-{n}")))],
            1 => vec![CatalogOp::Deregister { id, name }],
            2 => vec![CatalogOp::SetCheck { id, name, passing: false }],
            _ => vec![CatalogOp::EnsureNode, CatalogOp::Register(entry("demo-1"))],
        }
    };
    let attempts = stream::iter(0..ATTEMPTS).map(|n| {
        let (consul, ops) = (&consul, write(n));
        async move { consul.transact(late, NODE, &ops).await }
    });
    let answers: Vec<_> = attempts.buffer_unordered(16).collect().await;
    assert!(
        answers.iter().all(|answer| *answer == Err(TxnError::Fenced)),
        "{:?}",
        answers.iter().find(|a| a.is_ok())
    );
    assert_eq!(consul.node(NODE).await.unwrap(), before);
    let theirs = consul.read_epoch().await.unwrap().unwrap().1;
    assert_eq!(consul.transact(theirs, NODE, &write(0)).await, Ok(()), "the other one's is taken");
    println!("Consul: {} late writes, 0 taken", answers.len());
}
