//! The tools of this worker: opened from the settings, and offered in the catalogue.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{BoxError, Context};
use orchestrator_engine::config::ToolSettings;
use orchestrator_engine::store::{process, reach};
use orchestrator_engine::tool::ToolSpec;
use orchestrator_tools::{LlmConfig, Registry, ToolsConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Offer, in_time};

/// How often the catalogue is told again, lest it fade.
const REPEAT: Duration = Duration::from_mins(10);
/// How soon it is told again when that failed.
const RETRY: Duration = Duration::from_secs(2);

/// The tools, and whatever processes stand behind them.
pub(crate) struct Toolbox(Arc<Registry>);

/// Opens the tools that the settings name.
///
/// # Errors
///
/// When a setting of the tools is wrong; the sentence says which and how.
pub(crate) async fn open(ctx: &Context) -> Result<Toolbox, BoxError> {
    let config = config(&ctx.settings.tools)?;
    Ok(Toolbox(Arc::new(Registry::start(config, Arc::clone(&ctx.clock)).await?)))
}

fn config(settings: &ToolSettings) -> Result<ToolsConfig, BoxError> {
    let llm = match &settings.llm.base_url {
        None => None,
        Some(base_url) => Some(LlmConfig {
            base_url: base_url.parse().map_err(|error| format!("LLM_BASE_URL: {error}"))?,
            api_key: settings.llm.api_key.clone(),
            model: settings.llm.model.clone(),
        }),
    };
    Ok(ToolsConfig {
        http_allow_private: settings.http_allow_private.clone(),
        mcp_config: settings.mcp_config.clone(),
        llm,
        inherited_env: settings.inherited_env.clone(),
    })
}

impl Toolbox {
    /// What the worker is to offer, kept up to date until `stop`.
    pub(crate) fn offer(&self, stop: CancellationToken) -> Offer {
        let (sender, catalogue) = watch::channel(self.0.catalogue());
        let registry = Arc::clone(&self.0);
        let mut changes = registry.changes();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    alive = changes.changed() => if alive.is_err() { return },
                }
                drop(sender.send(registry.catalogue()));
            }
        });
        let caller = Arc::clone(&self.0);
        Offer { caller, catalogue }
    }

    /// Ends the processes behind the tools.
    pub(crate) async fn close(&self) {
        self.0.stop().await;
    }
}

/// Tells the catalogue whenever it changes, and from time to time.
pub(crate) async fn keep_published(ctx: &Context, mut catalogue: watch::Receiver<Vec<ToolSpec>>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = catalogue.changed() => if changed.is_err() {
                tokio::time::sleep(pause).await; // it will not change any more
            }
        }
        let tools = catalogue.borrow_and_update().clone();
        pause = if publish(ctx, &tools).await { REPEAT } else { RETRY };
    }
}

/// Tells which tools there are. Returns whether that succeeded.
pub(crate) async fn publish(ctx: &Context, tools: &[ToolSpec]) -> bool {
    let told = in_time("tell our tools", async {
        let mut conn = reach(&ctx.pool).await?;
        process::offer_tools(&mut conn, tools).await
    });
    match told.await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tools of this worker could not be told; will try again"
            );
            false
        }
    }
}
