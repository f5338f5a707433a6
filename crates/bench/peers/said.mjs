// What both scripts share: the payload, which is that of the ceiling, and what they tell the bench.
export const job = (seq) => ({ seq, kind: 'bench', pad: 'x'.repeat(160) });

let count = 0;
let told = 0;
export const say = {
  // `began COUNT SECONDS`: how many jobs have begun, at the first and then every hundred, and when.
  began(jobs) {
    const first = count === 0;
    count += jobs;
    if (first || count - told >= 100) {
      told = count;
      const now = (performance.timeOrigin + performance.now()) / 1000;
      process.stdout.write(`began ${count} ${now}\n`);
    }
  },
};
