//! `max_connections` is reached: somebody else has them all, and who reconnects is refused.
//!
//! Whoever takes them begins to connect and then says nothing more: Postgres keeps a connection for
//! a minute for somebody who has not yet said the password (`authentication_timeout`).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::world::{World, address};
use crate::{Outcome, Plan};

/// Between two looks for a free connection, once there is none.
const BETWEEN: Duration = Duration::from_millis(20);

/// `StartupMessage` of protocol 3.0 (PostgreSQL manual, 55.7), less its length.
const HELLO: &[u8] = b"\0\x03\0\0user\0orchestrator\0database\0orchestrator\0\0";

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let server = address(world.postgres.url())?;
    let mut most = 0;
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage)).await;
        }
        let mut own = world.postgres.connect().await?;
        let mut taken = Vec::new();
        let until = Instant::now() + plan.outage;
        while Instant::now() < until {
            if let Some(connection) = take(server).await? {
                taken.push(connection);
                continue;
            }
            // All are taken; those of the services are wanted as well.
            sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name like 'orchestrator-%' limit 10",
            )
            .execute(&mut own)
            .await?;
            tokio::time::sleep(BETWEEN).await;
        }
        most = most.max(taken.len());
        drop(taken);
        world.note_made_good();
    }
    Ok(format!("{} times, {most} of 100 connections taken", plan.rounds))
}

/// Takes a connection; none when Postgres refuses it.
async fn take(server: std::net::SocketAddr) -> Outcome<Option<TcpStream>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u32::try_from(HELLO.len() + 4)?;
    stream.write_all(&[&length.to_be_bytes()[..], HELLO].concat()).await?;
    // It asks for the password (R), or says that it will not (E), or hangs up.
    let answer = stream.read_u8().await;
    Ok(answer.is_ok_and(|kind| kind == b'R').then_some(stream))
}
