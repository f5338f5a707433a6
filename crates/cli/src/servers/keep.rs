//! Starting a server again that has ended while it was needed: killed for want of memory, or by hand.

use std::time::Duration;

use futures::future::select_all;

use super::{Options, Place, Running, Servers};
use crate::failure::Failure;

/// How long whoever ended it has for starting it again; then we do, as often as that.
const PAUSE: Duration = Duration::from_secs(2);

/// How often we try: what is left of a killed Postgres may keep its data for a while.
const TRIES: u32 = 10;

impl Servers {
    /// Starts servers again that end, where they were. Returns when one does not come back, with why.
    pub async fn keep_up(
        &mut self,
        place: &Place,
        options: &Options,
        search_path: &str,
    ) -> Failure {
        while !self.running.is_empty() {
            let ends = self.running.iter_mut().map(|one| Box::pin(one.server.ended()));
            let (how, at, _) = select_all(ends).await;
            let gone = &mut self.running[at];
            let name = gone.server.name();
            tracing::error!(
                "{name} has ended ({how}) and is started again; {} may say why",
                gone.server.log().display()
            );
            match again(gone, place, options, search_path).await {
                Ok(true) => tracing::info!("{name} is up again"),
                Ok(false) => {
                    tracing::info!("{name} is up again; it was not us who started it");
                    self.running.remove(at);
                }
                Err(failure) => return failure,
            }
        }
        std::future::pending().await
    }
}

/// Puts a new server in the place of one that has ended; `false` when somebody else did.
async fn again(
    gone: &mut Running,
    place: &Place,
    options: &Options,
    search_path: &str,
) -> Result<bool, Failure> {
    let mut why = String::new();
    for _ in 0..TRIES {
        tokio::time::sleep(PAUSE).await;
        if gone.kind.answers(&gone.url).await {
            return Ok(false);
        }
        match gone.kind.start(place, options, search_path).await {
            Ok((server, url)) if url == gone.url => {
                gone.server = server;
                return Ok(true);
            }
            Ok((server, _)) => {
                server.stop().await;
                "another program has its port".clone_into(&mut why);
            }
            Err(failure) => why = failure.to_string(),
        }
    }
    Err(Failure::failed(format!("{} has ended and does not come back: {why}", gone.server.name())))
}
