//! Recognising who calls, and counting what they ask, for all requests that come at once
//! ([`crate::together`]).

use std::collections::HashMap;
use std::sync::Arc;

use orchestrator_boot::{KeptConnection, in_time};
use orchestrator_engine::agent::Agent;
use orchestrator_engine::clock::Clock;
use orchestrator_engine::store::{StoreError, agent};
use orchestrator_engine::streams::Decision;
use sqlx::PgPool;

use crate::limits::Limits;
use crate::problem::Problem;
use crate::together::Batched;

/// Who a request comes from, and whether it may go on; `None`: there is no limit.
pub type Recognised = (Arc<Agent>, Option<Decision>);

/// The work of recognising callers by their keys and tokens.
pub struct Callers {
    conn: KeptConnection,
    clock: Arc<dyn Clock>,
    limits: Arc<Limits>,
}

impl Callers {
    /// Counts their requests against `limits`.
    #[must_use]
    pub fn new(pool: PgPool, clock: Arc<dyn Clock>, limits: Arc<Limits>) -> Self {
        Self { conn: KeptConnection::new(pool), clock, limits }
    }

    /// Who each secret belongs to.
    async fn find(&self, secrets: &[&str]) -> Result<Vec<Option<Arc<Agent>>>, StoreError> {
        let now = self.clock.now();
        let callers =
            self.conn.with(async |conn| agent::authenticate(conn, secrets, now).await).await?;
        Ok(callers.into_iter().map(|caller| caller.map(|caller| Arc::new(caller.agent))).collect())
    }
}

impl Batched for Callers {
    /// A key or token.
    type Asked = String;
    /// Errors: 401 when it is nobody's; 503 without a database.
    type Answer = Result<Recognised, Problem>;

    async fn answer(&self, secrets: Vec<String>) -> Vec<Self::Answer> {
        let mut distinct: Vec<_> = secrets.iter().map(String::as_str).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let found = match in_time("recognise callers", self.find(&distinct)).await {
            Ok(found) => distinct.into_iter().zip(found).collect::<HashMap<_, _>>(),
            Err(error) => {
                let problem = Problem::from(error);
                return secrets.iter().map(|_| Err(problem.clone())).collect();
            }
        };
        let agents: Vec<_> =
            secrets.iter().map(|secret| found.get(secret.as_str()).cloned().flatten()).collect();
        let known: Vec<_> = agents.iter().flatten().map(|agent| agent.id).collect();
        let mut decisions = self.limits.count_agents(&known).await.into_iter();
        let recognised = agents.into_iter().map(|agent| {
            let agent = agent.ok_or_else(Problem::invalid_token)?;
            Ok((agent, decisions.next().flatten()))
        });
        recognised.collect()
    }

    async fn rest(&self) {
        self.conn.rest().await;
    }
}
