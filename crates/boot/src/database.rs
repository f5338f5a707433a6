//! The pool, and patience with a database that is still starting.
//!
//! Between us and Postgres may stand a pooler that lends its connections for a transaction at a time
//! (PgBouncer, `pool_mode = transaction`). A session is then nobody's, so what needs one goes past it,
//! by `DATABASE_DIRECT_URL`: listening, and the lock under which the schema is brought up to date.
//! `docs/scaling.md` has the settings of the pooler.

use std::str::FromStr as _;
use std::time::Duration;

use orchestrator_engine::config::{Database, Secret, Service};
use orchestrator_engine::store;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tracing::log::LevelFilter;

use crate::{BoxError, patience, pooler};

/// How long a start waits for the database before it gives up; an orchestrating supervisor then
/// starts us again.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How long one try may take: a dropped packet must not use up the whole wait.
const TRY_MAX: Duration = Duration::from_secs(5);

/// How long a query waits for a free connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(10);

/// A connection that was used a moment ago is taken to be good; one that has idled longer is asked.
const TESTED_AFTER: Duration = Duration::from_secs(1);

/// How long a connection in doubt may take to say that it is there, before another is taken.
const PING_MAX: Duration = Duration::from_secs(1);

/// How long a transaction may wait for us. None of ours waits for anything but the database, so whoever
/// takes longer is stopped, frozen or cut off; Postgres then ends its session, and with it the locks
/// that others wait for. A process that comes back finds a broken connection, and tries again.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(5);

/// Statements prepared and kept per connection; there are fewer distinct ones in the program.
const STATEMENTS_KEPT: usize = 256;

/// What Postgres is told with it, as the options of a new connection.
pub(crate) const SILENT: &str = "idle_in_transaction_session_timeout";

/// How long one statement may take. Whoever asked gives up sooner; this is for Postgres, which would go on
/// with it beside the next try.
const STATEMENT_MAX: Duration = Duration::from_mins(1);

/// A pool that connects when it is first used. `service` shows in `pg_stat_activity`.
///
/// # Errors
///
/// When the URL is not one; settings have checked that before.
pub fn pool(settings: &Database, service: Service) -> Result<PgPool, BoxError> {
    let options = options(settings, service)?;
    Ok(checked()
        .max_connections(settings.max_connections)
        .min_connections(1)
        .connect_lazy_with(options))
}

/// The pool whose connections may listen: `pool`, or one past the pooler that `pool` goes through,
/// which connects when it is first used.
///
/// # Errors
///
/// When the URL is not one; settings have checked that before.
pub(crate) fn listening(
    settings: &Database,
    service: Service,
    pool: &PgPool,
) -> Result<PgPool, BoxError> {
    Ok(match direct_options(settings, service)? {
        Some(direct) => {
            checked().max_connections(settings.max_connections).connect_lazy_with(direct)
        }
        None => pool.clone(),
    })
}

fn checked() -> PgPoolOptions {
    PgPoolOptions::new()
        .acquire_timeout(ACQUIRE_MAX)
        // In place of the driver's own question, which waits without a limit.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for <= TESTED_AFTER { Ok(true) } else { answers(connection).await }
            })
        })
        // The pool asks it once more, and that without a limit.
        .after_release(|connection, _| {
            Box::pin(async move {
                if !patience::is_to_be_asked() || answers(connection).await? {
                    return Ok(true);
                }
                // An error, so that it is closed without a word: it would be waited for.
                Err(sqlx::Error::Protocol("a call on it was given up".to_owned()))
            })
        })
}

/// Whether the connection answers soon. One that a network has forgotten never does, and never ends.
async fn answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(tokio::time::timeout(PING_MAX, connection.ping()).await.is_ok_and(|answer| answer.is_ok()))
}

fn options(settings: &Database, service: Service) -> Result<PgConnectOptions, sqlx::Error> {
    let options = common_options(&settings.url, settings, service)?;
    // A pooler refuses what it cannot keep for one client, so nothing of the kind is asked of it.
    Ok(if settings.direct_url.is_some() { options } else { own_session(options) })
}

/// Those of connections past the pooler, where there is one.
fn direct_options(
    settings: &Database,
    service: Service,
) -> Result<Option<PgConnectOptions>, sqlx::Error> {
    let direct = settings.direct_url.as_ref();
    direct.map(|url| Ok(own_session(common_options(url, settings, service)?))).transpose()
}

fn own_session(options: PgConnectOptions) -> PgConnectOptions {
    let silent = SILENT_MAX.as_millis().to_string();
    let statement = STATEMENT_MAX.as_millis().to_string();
    options.options([(SILENT, &*silent), ("statement_timeout", &*statement), (pooler::MARK, "yes")])
}

fn common_options(
    url: &Secret,
    settings: &Database,
    service: Service,
) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url.expose())?
        .application_name(service.binary())
        .statement_cache_capacity(STATEMENTS_KEPT)
        // Needless since PostgreSQL 12, and refused by PgBouncer.
        .extra_float_digits(None)
        // Slow statements are told; ordinary ones only when somebody looks for a fault.
        .log_statements(if settings.log_queries { LevelFilter::Info } else { LevelFilter::Trace })
        .log_slow_statements(LevelFilter::Warn, Duration::from_secs(1)))
}

/// The pool of [`pool`], once the database has answered and is known to keep what we tell it.
///
/// # Errors
///
/// The last answer of the database, when it did not let us in within a minute; what has to be set,
/// when something stands between us and Postgres that would harm.
pub async fn connect(settings: &Database, service: Service) -> Result<PgPool, BoxError> {
    let options = options(settings, service)?;
    let mut connection = let_in(&options).await?;
    if settings.direct_url.is_some() {
        pooler::check(&mut connection, &options).await?;
    } else {
        pooler::refuse(&mut connection).await?;
    }
    drop(connection.close().await);
    pool(settings, service)
}

/// A connection, once the database has answered.
///
/// Tries again, saying so, for a minute. A single connection is used for that, because a pool itself
/// would only say that it waited.
async fn let_in(options: &PgConnectOptions) -> Result<PgConnection, BoxError> {
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let mut pause = Duration::from_millis(250);
    loop {
        let error: BoxError =
            match tokio::time::timeout(TRY_MAX, PgConnection::connect_with(options)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if pooler::refused_us(&error) => {
                    return Err(pooler::UNDECLARED.into());
                }
                Ok(Err(error)) => error.into(),
                Err(_) => format!("no answer within {} s", TRY_MAX.as_secs()).into(),
            };
        if tokio::time::Instant::now() + pause >= deadline {
            return Err(format!(
                "the database at {host}:{port} did not let us in within {} s: {error}",
                WAIT_MAX.as_secs()
            )
            .into());
        }
        tracing::warn!(
            error = &*error as &dyn std::error::Error,
            host,
            port,
            "the database at {host}:{port} does not let us in yet; trying again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(4));
    }
}

/// Applies what is missing of `migrations/`, under a lock: whichever service starts first does it.
/// `pool` is that of [`connect`]; where it goes through a pooler, a connection past it is made.
///
/// # Errors
///
/// When a migration fails, or the database was migrated by a newer version.
pub async fn bring_up_to_date(
    settings: &Database,
    service: Service,
    pool: &PgPool,
) -> Result<(), BoxError> {
    let version = match direct_options(settings, service)? {
        None => store::migrate(pool).await?,
        Some(direct) => {
            drop(let_in(&direct).await?.close().await);
            let past = PgPoolOptions::new().max_connections(1).connect_lazy_with(direct);
            let migrated = store::migrate(&past).await;
            past.close().await;
            migrated?
        }
    };
    tracing::debug!(version, "the database schema is up to date");
    Ok(())
}
