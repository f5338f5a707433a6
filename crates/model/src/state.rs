//! What there is at one moment: the rows in Postgres, what each worker remembers, and the transaction
//! that the API has open. Fields marked *told* are no part of the protocol: the properties read them.

/// A run's number, from 0.
pub type RunNo = usize;
/// A worker's number, from 0.
pub type WorkerNo = usize;
/// A lease's token. Only order and sameness count; 0: one whose lease is gone.
pub type Token = u8;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The runs, wherever they are.
    pub runs: Vec<Run>,
    /// The table `lease`, by token.
    pub leases: Vec<Lease>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The API's transaction.
    pub api: Api,
    /// What may still go wrong.
    pub left: Faults,
    /// *Told:* what must not happen and did.
    pub wrongs: Vec<Wrong>,
}

/// A run: its row of `due_work`, or of `run` once it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "columns of a row, as far as they count")]
pub struct Run {
    /// It has a row in `due_work`.
    pub queued: bool,
    /// How often it was written down as finished.
    pub ended: u8,
    /// How it ended.
    pub end: Option<End>,
    /// `attempt`: in the queue those that are over, of a finished run all.
    pub attempt: u8,
    /// `lapses > 0`: its last holder neither finished it nor gave it back.
    pub lapsed: bool,
    /// `started_at is not null`.
    pub started: bool,
    /// `cancel_requested_at is not null`.
    pub canceling: bool,
    /// `run_at <= now()`.
    pub due: bool,
    /// `xmax` names a transaction that locked the row or gave up.
    pub marked: bool,
    /// *Told:* calls with side effects that were made for it.
    pub calls: u8,
    /// *Told:* calls that a worker told to end has cut off and given back.
    pub cut: u8,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A worker wrote it.
    Worker,
    /// The API canceled it, and said so.
    Canceled,
}

/// A row of `lease`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The fencing token.
    pub token: Token,
    /// Whose it is; `None`: of a process that is gone.
    pub worker: Option<WorkerNo>,
    /// The worker knows of it. (In the code: its token is not above the highest seen.)
    pub known: bool,
    /// `until > now()`.
    pub live: bool,
    /// `run_ids`.
    pub runs: Vec<RunNo>,
    /// `ahead`: of those the ones that are not begun.
    pub ahead: Vec<RunNo>,
}

/// What a worker's process remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    /// It was told to end.
    pub stopping: bool,
    /// How far its look for work is.
    pub take: Take,
    /// The runs it holds, or thinks it holds.
    pub held: Vec<Held>,
}

/// How far a look for work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Take {
    /// Nothing is on.
    #[default]
    None,
    /// The answer of `take_due` was lost.
    Lost,
    /// `take_due` answered; the rows are not read yet.
    Chosen(Token, Vec<Pick>),
    /// Rows were read, and these are being written to: whoever does it is waited for.
    Doubtful(Token, Vec<Pick>, Vec<RunNo>),
    /// Nobody writes to them any more: they are to be read again.
    Again(Token, Vec<Pick>),
    /// Read; those left out are to be taken out of the lease.
    Read(Token, Vec<Held>),
}

/// A run that was leased, as `take_due` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pick {
    /// Which.
    pub run: RunNo,
    /// It is not to be begun at once. The answer says so, not the lease: that may be gone by the time
    /// the rows are read.
    pub ahead: bool,
}

/// A run in a worker's hands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// Which.
    pub run: RunNo,
    /// By which lease.
    pub token: Token,
    /// The attempt that begins with it, from 1.
    pub number: u8,
    /// Its holder before was lost.
    pub lapsed: bool,
    /// How far it is.
    pub stage: Stage,
    /// It was called.
    pub called: bool,
    /// *Told:* the lease has run out at some time since it was taken.
    pub ran_out: bool,
}

/// How far a worker is with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Leased ahead: nothing may be done for it yet.
    Ahead,
    /// Begun, nothing called yet.
    Begun,
    /// A call with side effects was made; there is no answer yet.
    Called,
    /// This is to be written, until the database has answered.
    Writing(Write),
}

/// What a worker writes last about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Write {
    /// `finish`, whatever the status.
    Finish,
    /// `requeue`, for another attempt.
    Requeue,
    /// `release`: given back.
    Release,
}

/// The API's transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Api {
    /// None is open.
    #[default]
    Idle,
    /// It has looked which rows nobody holds (the second list) before it wrote to them: only without
    /// [`crate::Rule::WriteThenLook`].
    Saw(Wish, Vec<RunNo>, Vec<RunNo>),
    /// The rows are written to, and so locked.
    Wrote(Wish, Vec<RunNo>),
    /// It has looked which of them nobody holds: the second list.
    Looked(Wish, Vec<RunNo>, Vec<RunNo>),
}

/// What the API is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// End runs, all of them in one transaction.
    Cancel,
    /// Move a run to a later time, if nobody has begun it (`debounce_seconds`).
    PutOff,
}

/// What may go wrong, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A lease runs out while its worker lives, because that stands still or is cut off. Those that no
    /// worker knows of run out by themselves.
    pub pauses: u8,
    /// A worker's process dies.
    pub crashes: u8,
    /// A worker is told to end.
    pub stops: u8,
    /// An answer of the database is lost, though it did what was asked.
    pub lost_answers: u8,
    /// Somebody cancels all runs at once.
    pub cancels: u8,
    /// Somebody puts the first run off.
    pub put_offs: u8,
    /// The API's transaction is given up.
    pub rollbacks: u8,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// A token whose lease does not hold the run changed it.
    StaleWrite,
    /// A run was begun after its cancel was answered as done, by a worker whose lease had not run out.
    BegunAfterCancel,
    /// A run that was put off was begun before its time.
    BegunEarly,
    /// A call belonged to an attempt beyond the most.
    BeyondTheMost,
}

impl State {
    /// The lease of this token, if it is there.
    #[must_use]
    pub fn lease(&self, token: Token) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.token == token)
    }

    pub(crate) fn lease_mut(&mut self, token: Token) -> Option<&mut Lease> {
        self.leases.iter_mut().find(|lease| lease.token == token)
    }

    /// The leases that name the run.
    pub fn leases_of(&self, run: RunNo) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.runs.contains(&run))
    }

    /// Whether the API's transaction holds the run's row.
    #[must_use]
    pub fn is_locked(&self, run: RunNo) -> bool {
        match &self.api {
            Api::Idle | Api::Saw(..) => false,
            Api::Wrote(_, rows) | Api::Looked(_, rows, _) => rows.contains(&run),
        }
    }

    /// Whether a worker knows of the lease.
    #[must_use]
    pub fn is_known(&self, token: Token) -> bool {
        self.workers.iter().any(|worker| {
            worker.take.token() == Some(token) || worker.held.iter().any(|held| held.token == token)
        })
    }

    pub(crate) fn note(&mut self, wrong: Wrong) {
        if !self.wrongs.contains(&wrong) {
            self.wrongs.push(wrong);
            self.wrongs.sort_unstable();
        }
    }

    /// Makes states that differ in nothing that counts the same: tokens are renumbered from 1 in their
    /// order, 0 is one whose lease is gone, workers have no names, and what is over has no past.
    pub(crate) fn normalise(&mut self) {
        let tokens: Vec<Token> = self.leases.iter().map(|lease| lease.token).collect();
        let anew = |token: Token| {
            let place = tokens.iter().position(|one| *one == token).map_or(0, |place| place + 1);
            Token::try_from(place).unwrap_or(Token::MAX)
        };
        for worker in &mut self.workers {
            for held in &mut worker.held {
                held.token = anew(held.token);
            }
            match &mut worker.take {
                Take::None | Take::Lost => {}
                Take::Chosen(token, _) | Take::Doubtful(token, ..) | Take::Again(token, _) => {
                    *token = anew(*token);
                }
                Take::Read(token, held) => {
                    *token = anew(*token);
                    for held in held {
                        held.token = anew(held.token);
                    }
                }
            }
            worker.held.sort_unstable();
        }
        for lease in &mut self.leases {
            lease.token = anew(lease.token);
        }
        for run in self.runs.iter_mut().filter(|run| !run.queued) {
            let Run { ended, end, attempt, calls, cut, .. } = *run;
            *run = Run { ended, end, attempt, calls, cut, ..Run::default() };
        }
        let mut order: Vec<WorkerNo> = (0..self.workers.len()).collect();
        let leases = |no: WorkerNo| {
            self.leases
                .iter()
                .filter(move |lease| lease.worker == Some(no))
                .map(|lease| lease.token)
        };
        order.sort_by(|a, b| {
            self.workers[*a].cmp(&self.workers[*b]).then_with(|| leases(*a).cmp(leases(*b)))
        });
        self.workers = order.iter().map(|no| self.workers[*no].clone()).collect();
        for lease in &mut self.leases {
            lease.worker = lease.worker.and_then(|no| order.iter().position(|one| *one == no));
        }
    }
}

impl Take {
    fn token(&self) -> Option<Token> {
        match self {
            Self::None | Self::Lost => None,
            Self::Chosen(token, _)
            | Self::Doubtful(token, ..)
            | Self::Again(token, _)
            | Self::Read(token, _) => Some(*token),
        }
    }
}
