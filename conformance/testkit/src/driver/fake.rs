//! The Rust core against the fake bus of `acb-testing`, which users' tests run against: what it promises is what the server
//! promises. Scenarios that only a raw client can run are run by one, against the same bus.

use super::{Core, Driver, Kind, Place, Raw};
use crate::{bus::BusKind, scenario::model::Scenario};

/// The fake bus.
#[derive(Clone, Copy, Debug)]
pub struct Fake;

impl Kind for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn driver(&self, place: Place) -> Box<dyn Driver> {
        if place.raw_only { Raw.driver(place) } else { Core.driver(place) }
    }

    fn bus(&self) -> BusKind {
        BusKind::Fake
    }

    fn runs(&self, scenario: &Scenario) -> bool {
        Core.runs(scenario) || Raw.runs(scenario)
    }
}
