//! Every row, in the order of the table.

mod apis;
mod channels;
mod clients;
mod clocks;
mod database;
mod fcm;
mod gateways;
mod notifiers;
mod registry;
mod soak;
mod storm;

use crate::scenario::Scenario;

/// Rows that compare times before and during the fault, or fill the machine: nothing else may run beside them.
pub(crate) const ALONE: [u32; 9] = [5, 6, 13, 14, 17, 20, 29, 30, 32];

/// All scenarios, by row.
pub(crate) fn all() -> Vec<Scenario> {
    let groups = [
        apis::ROWS,
        channels::ROWS,
        clients::ROWS,
        clocks::ROWS,
        database::ROWS,
        fcm::ROWS,
        gateways::ROWS,
        notifiers::ROWS,
        registry::ROWS,
        soak::ROWS,
        storm::ROWS,
    ];
    let mut all = groups.concat();
    all.sort_by_key(|scenario| scenario.row);
    all
}

#[cfg(test)]
mod tests {
    use super::all;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_that_is_due_has_a_scenario_and_every_name_is_its_own() {
        let rows: BTreeSet<u32> = all().iter().map(|scenario| scenario.row).collect();
        let due: BTreeSet<u32> = (1..=33).chain([36, 38, 39, 40, 41]).collect();
        assert_eq!(rows, due);
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
