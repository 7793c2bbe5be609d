//! How a simulator is made: what is fixed for its whole life, and the defaults.
//!
//! Owns the bounds of those values. How the service behaves later is `settings`.

use super::calls::Counters;
use super::engine::{Engine, MAX_OPEN_SHARDS, Origin};
use super::load::{Load, LoadOptions};
use super::{Faults, Inner, Refused, Settings, Simulator, StreamViewType, expect};
use crate::arn::StreamArn;
use crate::source::StreamStatus;
use std::sync::{Arc, Mutex};

/// What a new simulator is to be. Made by [`Simulator::builder`].
pub struct Builder {
    origin: Origin,
    load: Option<LoadOptions>,
}

impl Simulator {
    /// A simulator of `stream`, to be described further.
    pub fn builder(stream: StreamArn) -> Builder {
        Builder {
            origin: Origin {
                stream,
                view: StreamViewType::default(),
                status: StreamStatus::Enabled,
                shards: 1,
                first_number: 300_000_000_000_000_499_659,
                seed: 0,
                settings: Settings::default(),
            },
            load: None,
        }
    }
}

impl Builder {
    /// Shards open at the start; 1 unless said otherwise.
    pub fn shards(mut self, shards: usize) -> Self {
        self.origin.shards = shards;
        self
    }

    /// Which images records carry; both unless said otherwise.
    pub fn view_type(mut self, view: StreamViewType) -> Self {
        self.origin.view = view;
        self
    }

    /// `Enabling` lists no shards until [`Simulator::enable`]; `Enabled` unless said
    /// otherwise.
    pub fn status(mut self, status: StreamStatus) -> Self {
        self.origin.status = status;
        self
    }

    /// The first number given out, so that lengths can cross: from
    /// 999999999999999999000 on they soon have 22 digits.
    pub fn first_sequence_number(mut self, number: u128) -> Self {
        self.origin.first_number = number;
        self
    }

    /// Makes number steps, event ids and fault dice repeat. Shard ids hold the time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.origin.seed = seed;
        self
    }

    /// How the service behaves.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.origin.settings = settings;
        self
    }

    /// Pages made beforehand in every shard, for benchmarks.
    pub fn load(mut self, load: LoadOptions) -> Self {
        self.load = Some(load);
        self
    }

    /// The simulator.
    ///
    /// # Panics
    /// Where [`Self::try_build`] refuses.
    pub fn build(self) -> Simulator {
        expect(self.try_build())
    }

    /// The simulator. With a load this takes a while: the pages are made now.
    ///
    /// # Errors
    /// [`Refused`] if the settings or the load are out of their bounds, there are no shards
    /// or more than 10,000, or the first sequence number does not have 21 to 38 digits.
    pub fn try_build(self) -> Result<Simulator, Refused> {
        let Self { origin, load } = self;
        origin.settings.check()?;
        if !(1..=MAX_OPEN_SHARDS).contains(&origin.shards) {
            return Err(Refused::new(format!(
                "a simulator has from 1 to {MAX_OPEN_SHARDS} shards, not {}",
                origin.shards
            )));
        }
        if !(10_u128.pow(20)..10_u128.pow(38)).contains(&origin.first_number) {
            return Err(Refused::new("the first sequence number must have 21 to 38 digits"));
        }
        if let Some(load) = &load {
            load.check(origin.shards)?;
        }
        let (stream, faults) = (origin.stream.clone(), Faults::new(origin.seed));
        let mut engine = Engine::new(origin);
        let load = load.map(|options| Load::new(&mut engine, &options));
        Ok(Simulator(Arc::new(Inner {
            stream,
            engine: Mutex::new(engine),
            load,
            faults,
            counters: Counters::default(),
        })))
    }
}
