//! The scenarios that say they are of a test's network: the simulator's figures are compared with what the test measures.

use std::{fs, path::Path};

use toml::{Table, Value};

/// Whether a scenario that ships has as many nodes as a test, its coding, and the times that it gives to its nodes.
pub(crate) fn assert_is_of(scenario: &str, nodes: usize, coding: &str, times: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulations/scenarios").join(scenario);
    let parsed = |text: &str| text.parse::<Table>().unwrap();
    let (scenario, times) = (parsed(&fs::read_to_string(path).unwrap()), parsed(times));
    assert_eq!(scenario["network"]["nodes"], Value::Integer(nodes as i64));
    assert_eq!(scenario["network"]["coding"], Value::String(coding.to_owned()));
    for section in ["audit", "repair"] {
        assert_eq!(scenario[section], times[section], "{section}");
    }
}
