//! Going on from a checkpoint: only as the run that it belongs to.

use std::path::Path;
use std::result::Result as Outcome;

use serde_json::{Map, Value};

use super::config_file::ConfigFile;
use super::{EMA, OPTIMIZER, STATE, in_file, load_weights};
use crate::train::config::TrainConfig;
use crate::train::ema::Ema;
use crate::train::files::{self, fault};
use crate::train::fingerprint::Fingerprint;
use crate::train::optimizer::Optimizer;
use crate::train::state::RunState;
use crate::{ParamStore, Result};

/// So many differences are listed; runs that have more in which they differ are other runs.
const LISTED: usize = 6;
/// Longer values are cut: a difference is named, not printed.
const VALUE: usize = 40;

/// What is asked for when a run is resumed; each part is filled from the checkpoint.
pub(in crate::train) struct Resumption<'a> {
    pub store: &'a ParamStore,
    pub task: Value,
    pub train: &'a TrainConfig,
    pub data: Option<Fingerprint>,
    /// The field of `task` that says where the data lie.
    pub location: Option<&'static str>,
    pub optimizer: &'a mut Optimizer,
    pub ema: Option<&'a mut Ema>,
}

impl Resumption<'_> {
    /// Checks configuration, data and tensors of `folder`, then takes them over.
    pub(in crate::train) fn load(self, folder: &Path) -> Result<RunState> {
        let file = ConfigFile::read(folder)?;
        self.compare(&file).map_err(|reason| fault(folder.join("config.json"), reason))?;
        let state: RunState = files::read_json(&folder.join(STATE))?;
        in_file(&folder.join(OPTIMIZER), self.optimizer.restore(&file.read_tensors(folder, OPTIMIZER)?))?;
        if let Some(ema) = self.ema {
            in_file(&folder.join(EMA), ema.restore(&file.read_tensors(folder, EMA)?, state.ema_updates))?;
        }
        load_weights(folder, self.store, false)?;
        Ok(state)
    }

    /// Why this is not the run of the checkpoint.
    fn compare(&self, file: &ConfigFile) -> Outcome<(), String> {
        let (mut saved, mut asked) = (file.task.clone(), through_text(&self.task)?);
        if let (Some(then), Some(now)) = (&file.data, &self.data) {
            if then.kind() != now.kind() {
                return Err(format!(
                    "belongs to a run on {}, this one is on {}; resume it with the program that made it",
                    then.kind(),
                    now.kind()
                ));
            }
            if let Some(difference) = now.difference(then) {
                return Err(format!(
                    "was made from other data ({difference}); resume with the data of the run, or start another run in \
                     another folder"
                ));
            }
            // The same data by another name.
            for task in [&mut saved, &mut asked] {
                if let (Some(location), Some(fields)) = (self.location, task.as_object_mut()) {
                    fields.remove(location);
                }
            }
        }
        if let (Value::Object(saved), Value::Object(asked)) = (&saved, &asked)
            && !is_alike(saved, asked)
        {
            let fields: Vec<&str> = saved.keys().map(String::as_str).collect();
            return Err(format!(
                "belongs to a run of another kind, described by {}; resume it with the program that made it",
                fields.join(", ")
            ));
        }
        let mut found = Vec::new();
        list_differences("", &saved, &asked, SIDES, &mut found);
        if let Some(train) = &file.train {
            let json = |config: &TrainConfig| config.binding().map_err(|e| e.to_string());
            list_differences("", &json(train)?, &through_text(&json(self.train)?)?, SIDES, &mut found);
        }
        match in_one_line(&found) {
            Some(differences) => Err(format!("was made with other settings: {differences}")),
            None => Ok(()),
        }
    }
}

/// What the two sides of a resume are called.
const SIDES: [&str; 2] = ["checkpoint", "asked"];

/// Where two JSON values differ, `name: FIRST a, SECOND b` for the names of the two sides; `None` if they do not.
pub(in crate::train) fn differences(first: &Value, second: &Value, sides: [&str; 2]) -> Option<String> {
    let mut found = Vec::new();
    list_differences("", first, second, sides, &mut found);
    in_one_line(&found)
}

/// The first differences, and how many more there are.
fn in_one_line(found: &[String]) -> Option<String> {
    match found.len().saturating_sub(LISTED) {
        _ if found.is_empty() => None,
        0 => Some(found.join("; ")),
        more => Some(format!("{}; and {more} more", found[..LISTED].join("; "))),
    }
}

/// Whether two descriptions have most of their fields in common.
fn is_alike(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let common = a.keys().filter(|key| b.contains_key(*key)).count();
    2 * common >= a.len().max(b.len())
}

/// Writes and reads a value, so that both sides of a comparison have lost the same bits of their floats.
fn through_text(value: &Value) -> Outcome<Value, String> {
    serde_json::from_str(&value.to_string()).map_err(|e| e.to_string())
}

/// Appends `name: FIRST a, SECOND b` for every leaf in which two JSON values differ.
fn list_differences(name: &str, saved: &Value, asked: &Value, sides: [&str; 2], out: &mut Vec<String>) {
    match (saved, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                list_differences(&name, &side(a), &side(b), sides, out);
            }
        }
        _ if saved == asked => {}
        _ => out.push(format!("{name}: {} {}, {} {}", sides[0], shown(saved), sides[1], shown(asked))),
    }
}

/// A value, or the beginning of a long one.
fn shown(value: &Value) -> String {
    let text = if value.is_null() { "nothing".to_string() } else { value.to_string() };
    match text.char_indices().nth(VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shown(&Value::Null), "nothing");
        assert_eq!(shown(&serde_json::json!([1, 2])), "[1,2]");
        let long = shown(&Value::String("é".repeat(100)));
        assert_eq!(long.chars().count(), VALUE + 1);
    }
}
