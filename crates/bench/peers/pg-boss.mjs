// pg-boss through its public API, set up as its documentation advises for throughput: batches of 500,
// two local workers, and the next batch at once after a full one. Completed jobs stay on record.
//
//   node pg-boss.mjs setup | fill COUNT | work        (DATABASE_URL says where)
import { PgBoss } from 'pg-boss';
import { job, say } from './said.mjs';

const QUEUE = 'bench';
const [verb, count] = process.argv.slice(2);
const working = verb === 'work';
const boss = new PgBoss({
  connectionString: process.env.DATABASE_URL,
  max: 25,
  supervise: working,
  schedule: working,
});
boss.on('error', (error) => console.error(String(error)));
await boss.start();

if (verb === 'setup') {
  await boss.createQueue(QUEUE);
} else if (verb === 'fill') {
  for (let from = 0; from < +count; from += 1000) {
    const size = Math.min(1000, +count - from);
    await boss.insert(QUEUE, Array.from({ length: size }, (_, n) => ({ data: job(from + n) })));
  }
} else {
  const options = {
    batchSize: 500,
    localConcurrency: 2,
    pollingIntervalSeconds: 0.5,
    burstWhenBatchFull: true,
  };
  await boss.work(QUEUE, options, async (jobs) => say.began(jobs.length));
  process.on('SIGTERM', async () => {
    await boss.stop({ graceful: true, timeout: 3000 });
    process.exit(0);
  });
}
if (!working) {
  await boss.stop();
  process.exit(0);
}
