//! `pg_terminate_backend`: a connection ends in the middle of whatever it did.

use rand::RngExt as _;

use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let mut connection = world.postgres.connect().await?;
    let mut ended: i64 = 0;
    for _ in 0..plan.kills {
        let pause = plan.between_kills().mul_f64(world.rng.random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        // Those at work first: an idle connection has little to lose.
        ended += sqlx::query_scalar::<_, i64>(
            "select count(*) filter (where pg_terminate_backend(pid))
             from (select pid from pg_stat_activity where application_name like 'orchestrator-%'
                   order by state = 'idle', random() limit 2) as chosen",
        )
        .fetch_one(&mut connection)
        .await?;
        world.note_made_good();
    }
    Ok(format!("{ended} sessions"))
}
