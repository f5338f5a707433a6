// graphile-worker through its public API, with the preset its documentation names for throughput: a
// local queue of 500 and completion in batches. Completed jobs are deleted: it keeps no record.
//
//   node graphile-worker.mjs setup | fill COUNT | work        (DATABASE_URL says where)
import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker';
import { job, say } from './said.mjs';

const [verb, count] = process.argv.slice(2);
const logger = new Logger(() => () => {});
const connectionString = process.env.DATABASE_URL;

if (verb === 'setup') {
  await runMigrations({ connectionString, logger });
} else if (verb === 'fill') {
  const utils = await makeWorkerUtils({ connectionString, logger });
  for (let from = 0; from < +count; from += 1000) {
    const size = Math.min(1000, +count - from);
    await utils.addJobs(
      Array.from({ length: size }, (_, n) => ({ identifier: 'bench', payload: job(from + n) })),
    );
  }
  await utils.release();
} else {
  const worker = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
  const runner = await run({
    preset: { worker },
    connectionString,
    logger,
    concurrency: 24,
    maxPoolSize: 25,
    pollInterval: 2000,
    noHandleSignals: true,
    taskList: { bench: async () => say.began(1) },
  });
  process.on('SIGTERM', async () => {
    await runner.stop();
    process.exit(0);
  });
}
