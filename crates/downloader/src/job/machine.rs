//! What a download does when it is told something: the table of the specification's section 6,
//! without any I/O.
//!
//! In: what a caller wants, what the queue grants, how the transfer goes. Out: what to do, in order.
//! The state on the wire is a *wish*; whether anything moves is [`Activity`], which only we see.

/// The state, by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Created.
    Idle = 0,
    /// Started, or waiting after `start`.
    Start = 1,
    /// Paused.
    Pause = 2,
    /// Running again, or waiting after `resume`.
    Resume = 3,
    /// Canceled.
    Cancel = 4,
    /// Complete; its owner has not acknowledged it.
    Uncollected = 5,
    /// Complete and acknowledged.
    Finish = 6,
    /// Failed.
    Error = 7,
}

/// Every state with its text in the database.
const TEXTS: [(State, &str); 8] = [
    (State::Idle, "idle"),
    (State::Start, "start"),
    (State::Pause, "pause"),
    (State::Resume, "resume"),
    (State::Cancel, "cancel"),
    (State::Uncollected, "uncoll"),
    (State::Finish, "finish"),
    (State::Error, "error"),
];

impl State {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The text in the database.
    pub fn text(self) -> &'static str {
        TEXTS[self as usize].1
    }

    /// Reads [`text`](Self::text).
    pub fn from_text(text: &str) -> Option<Self> {
        let found = TEXTS.iter().find(|(_, known)| *known == text);
        found.map(|(state, _)| *state)
    }

    /// Whether it is over: the download is on the bus no more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Cancel | Self::Finish | Self::Error)
    }
}

/// What really happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing, and nothing is wanted.
    Resting,
    /// It wants to run and may not yet.
    Waiting,
    /// Bytes flow.
    Running,
    /// All bytes are there; the file is checked, unpacked, handed to a command or put in its place.
    Finishing,
}

/// One file, or several that arrive all or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file.
    Single,
    /// Several.
    Group,
}

/// What somebody tells a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A caller wants it to run.
    Start,
    /// A caller wants it to stand still.
    Pause,
    /// A caller wants it to go on.
    Resume,
    /// A caller gives it up.
    Cancel,
    /// The caller has taken the file.
    Collected,
    /// The queue: it is its turn, and the network is one that it may use.
    Granted,
    /// The queue: it may not run any more for now.
    Withheld,
    /// The transfer: all bytes are there.
    Received,
    /// The transfer: the file is in its place.
    Done,
    /// The transfer has failed for good.
    Failed,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Begin or continue to transfer.
    Run,
    /// Stop the transfer and keep what it has brought.
    Stop,
    /// Delete what the transfer has brought, but nothing that is complete.
    Discard,
    /// Tell `started`.
    Started(bool),
    /// Tell `paused`.
    Paused(bool),
    /// Tell `resumed`.
    Resumed(bool),
    /// Tell `canceled`.
    Canceled(bool),
    /// Take it off the bus.
    Leave,
}

/// What is told when it is its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Started,
    Resumed,
}

/// A download's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    kind: Kind,
    state: State,
    activity: Activity,
    greeting: Greeting,
}

impl Machine {
    /// A new one.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: State::Idle,
            activity: Activity::Resting,
            greeting: Greeting::Started,
        }
    }

    /// One of an earlier process: whoever ran or waited then waits now. `ran` is whether it was
    /// ever its turn.
    pub const fn restored(kind: Kind, state: State, ran: bool) -> Self {
        let activity = match state {
            State::Start | State::Resume => Activity::Waiting,
            _ => Activity::Resting,
        };
        let greeting = if ran {
            Greeting::Resumed
        } else {
            Greeting::Started
        };
        Self {
            kind,
            state,
            activity,
            greeting,
        }
    }

    /// The wish.
    pub const fn state(&self) -> State {
        self.state
    }

    /// What happens.
    pub const fn activity(&self) -> Activity {
        self.activity
    }

    /// Says what to do about it. Whatever is not legal now changes nothing.
    pub fn told(&mut self, told: Told) -> Vec<Act> {
        if self.state.is_over() {
            return Vec::new();
        }
        match told {
            Told::Start => self.start(),
            Told::Resume => self.resume(),
            Told::Pause => self.pause(),
            Told::Cancel => self.cancel(),
            Told::Collected if self.state == State::Uncollected => {
                self.state = State::Finish;
                vec![Act::Leave]
            }
            Told::Granted if self.activity == Activity::Waiting => {
                self.activity = Activity::Running;
                let greeting = match self.greeting {
                    Greeting::Started => Act::Started(true),
                    Greeting::Resumed => Act::Resumed(true),
                };
                vec![greeting, Act::Run]
            }
            Told::Withheld if self.activity == Activity::Running => {
                self.activity = Activity::Waiting;
                self.greeting = Greeting::Resumed;
                vec![Act::Stop, Act::Paused(true)]
            }
            Told::Received if self.activity == Activity::Running => {
                self.activity = Activity::Finishing;
                Vec::new()
            }
            Told::Done => self.done(),
            Told::Failed => {
                self.state = State::Error;
                self.activity = Activity::Resting;
                vec![Act::Discard, Act::Leave]
            }
            Told::Collected | Told::Granted | Told::Withheld | Told::Received => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Act> {
        match self.state {
            State::Idle => self.wait(State::Start, Greeting::Started),
            State::Pause => self.wait(State::Resume, Greeting::Resumed),
            State::Uncollected => vec![Act::Started(false)],
            _ => Vec::new(),
        }
    }

    fn resume(&mut self) -> Vec<Act> {
        match self.state {
            State::Idle => self.wait(State::Start, Greeting::Started),
            State::Pause => self.wait(State::Resume, Greeting::Resumed),
            State::Uncollected => vec![Act::Resumed(false)],
            _ => {
                self.state = State::Resume;
                Vec::new()
            }
        }
    }

    fn wait(&mut self, state: State, greeting: Greeting) -> Vec<Act> {
        self.state = state;
        self.activity = Activity::Waiting;
        self.greeting = greeting;
        Vec::new()
    }

    fn pause(&mut self) -> Vec<Act> {
        if matches!(self.state, State::Pause) {
            return Vec::new();
        }
        if self.state == State::Uncollected || self.activity == Activity::Finishing {
            return vec![Act::Paused(false)];
        }
        let ran = self.activity == Activity::Running;
        self.state = State::Pause;
        self.activity = Activity::Resting;
        let told = Act::Paused(ran || self.kind == Kind::Group);
        if ran {
            vec![Act::Stop, told]
        } else {
            vec![told]
        }
    }

    fn cancel(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        if matches!(self.activity, Activity::Running | Activity::Finishing) {
            acts.push(Act::Stop);
        }
        if self.state != State::Uncollected {
            acts.push(Act::Discard);
        }
        acts.extend([Act::Canceled(true), Act::Leave]);
        self.state = State::Cancel;
        self.activity = Activity::Resting;
        acts
    }

    fn done(&mut self) -> Vec<Act> {
        if !matches!(self.activity, Activity::Running | Activity::Finishing) {
            return Vec::new();
        }
        self.activity = Activity::Resting;
        match self.kind {
            Kind::Single => {
                self.state = State::Uncollected;
                Vec::new()
            }
            Kind::Group => {
                self.state = State::Finish;
                vec![Act::Leave]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The columns of the specification's table.
    const COLUMNS: [(&str, &[Told]); 5] = [
        ("idle", &[]),
        ("running", &[Told::Start, Told::Granted]),
        ("waiting", &[Told::Start]),
        ("paused", &[Told::Start, Told::Granted, Told::Pause]),
        (
            "uncollected",
            &[Told::Start, Told::Granted, Told::Received, Told::Done],
        ),
    ];

    fn at(kind: Kind, column: &[Told]) -> Machine {
        let mut machine = Machine::new(kind);
        for told in column {
            machine.told(*told);
        }
        machine
    }

    #[test]
    fn calls_do_what_the_table_says() {
        use State::{Cancel, Finish, Idle, Pause, Resume, Start, Uncollected};
        type Cell = (State, &'static [Act]);
        const NONE: &[Act] = &[];
        const GONE: &[Act] = &[Act::Discard, Act::Canceled(true), Act::Leave];
        let rows: [(Told, [Cell; 5]); 5] = [
            (
                Told::Start,
                [
                    (Start, NONE),
                    (Start, NONE),
                    (Start, NONE),
                    (Resume, NONE),
                    (Uncollected, &[Act::Started(false)]),
                ],
            ),
            (
                Told::Pause,
                [
                    (Pause, &[Act::Paused(false)]),
                    (Pause, &[Act::Stop, Act::Paused(true)]),
                    (Pause, &[Act::Paused(false)]),
                    (Pause, NONE),
                    (Uncollected, &[Act::Paused(false)]),
                ],
            ),
            (
                Told::Resume,
                [
                    (Start, NONE),
                    (Resume, NONE),
                    (Resume, NONE),
                    (Resume, NONE),
                    (Uncollected, &[Act::Resumed(false)]),
                ],
            ),
            (
                Told::Cancel,
                [
                    (Cancel, GONE),
                    (
                        Cancel,
                        &[Act::Stop, Act::Discard, Act::Canceled(true), Act::Leave],
                    ),
                    (Cancel, GONE),
                    (Cancel, GONE),
                    (Cancel, &[Act::Canceled(true), Act::Leave]),
                ],
            ),
            (
                Told::Collected,
                [
                    (Idle, NONE),
                    (Start, NONE),
                    (Start, NONE),
                    (Pause, NONE),
                    (Finish, &[Act::Leave]),
                ],
            ),
        ];
        for (told, cells) in rows {
            for ((column, way), (state, acts)) in COLUMNS.iter().zip(cells) {
                let mut machine = at(Kind::Single, way);
                let got = machine.told(told);
                assert_eq!(
                    (machine.state(), &got[..]),
                    (state, acts),
                    "{told:?} {column}"
                );
            }
        }
    }

    #[test]
    fn its_turn_is_told_once_and_in_the_right_words() {
        let start = [Told::Start];
        let idle_resumed = [Told::Resume];
        let paused = [Told::Start, Told::Granted, Told::Pause, Told::Resume];
        let idle_paused = [Told::Pause, Told::Start];
        let withheld = [Told::Start, Told::Granted, Told::Withheld];
        let running_resumed = [Told::Start, Told::Granted, Told::Resume, Told::Withheld];
        for (way, greeting) in [
            (&start[..], Act::Started(true)),
            (&idle_resumed[..], Act::Started(true)),
            (&paused[..], Act::Resumed(true)),
            (&idle_paused[..], Act::Resumed(true)),
            (&withheld[..], Act::Resumed(true)),
            (&running_resumed[..], Act::Resumed(true)),
        ] {
            let mut machine = at(Kind::Single, way);
            assert_eq!(machine.told(Told::Granted), [greeting, Act::Run], "{way:?}");
            assert_eq!(machine.told(Told::Granted), [], "{way:?}");
        }
    }

    #[test]
    fn a_group_is_always_told_that_it_is_paused_and_leaves_when_it_is_done() {
        let mut idle = Machine::new(Kind::Group);
        assert_eq!(idle.told(Told::Pause), [Act::Paused(true)]);
        let mut done = at(Kind::Group, &[Told::Start, Told::Granted]);
        assert_eq!(done.told(Told::Done), [Act::Leave]);
        assert_eq!(done.state(), State::Finish);
    }

    #[test]
    fn what_ran_or_waited_before_a_restart_waits_after_it() {
        for (state, ran, activity, told) in [
            (
                State::Start,
                true,
                Activity::Waiting,
                Some(Act::Resumed(true)),
            ),
            (
                State::Start,
                false,
                Activity::Waiting,
                Some(Act::Started(true)),
            ),
            (
                State::Resume,
                true,
                Activity::Waiting,
                Some(Act::Resumed(true)),
            ),
            (State::Idle, false, Activity::Resting, None),
            (State::Pause, true, Activity::Resting, None),
            (State::Uncollected, true, Activity::Resting, None),
        ] {
            let mut machine = Machine::restored(Kind::Single, state, ran);
            assert_eq!(machine.activity(), activity, "{state:?}");
            assert_eq!(
                machine.told(Told::Granted).first().copied(),
                told,
                "{state:?}"
            );
        }
    }

    #[test]
    fn states_survive_the_database() {
        for (state, text) in TEXTS {
            assert_eq!(state.text(), text);
            assert_eq!(State::from_text(text), Some(state));
        }
        assert_eq!(State::from_text("sleeping"), None);
    }

    fn any_told() -> impl Strategy<Value = Told> {
        use Told::{
            Cancel, Collected, Done, Failed, Granted, Pause, Received, Resume, Start, Withheld,
        };
        prop::sample::select(vec![
            Start, Pause, Resume, Cancel, Collected, Granted, Withheld, Received, Done, Failed,
        ])
    }

    proptest! {
        #[test]
        fn whatever_is_told_it_runs_once_and_leaves_once(
            group: bool,
            all in prop::collection::vec(any_told(), 0..40),
        ) {
            let mut machine = Machine::new(if group { Kind::Group } else { Kind::Single });
            let (mut running, mut left) = (false, false);
            for told in all {
                let before = machine.clone();
                for act in machine.told(told) {
                    prop_assert!(!left, "{act:?} after the end");
                    match act {
                        Act::Run => {
                            prop_assert!(!running);
                            running = true;
                        }
                        Act::Stop => {
                            prop_assert!(running);
                            running = false;
                        }
                        Act::Leave => left = true,
                        _ => {}
                    }
                }
                // A transfer that has said its last word does not run.
                if matches!(told, Told::Done | Told::Failed) && machine != before {
                    running = false;
                }
                let at_work = matches!(
                    machine.activity(),
                    Activity::Running | Activity::Finishing
                );
                prop_assert_eq!(running, at_work);
                prop_assert_eq!(left, machine.state().is_over());
            }
        }
    }
}
