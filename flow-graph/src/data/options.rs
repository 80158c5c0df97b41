//! How a file is opened.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Components;

/// How a file becomes molecules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The column of SMILES in a table; without it the first whose name says so, as `smiles`, `CanonicalSMILES` and
    /// `isomeric_smiles` do, else one that is named `mol`, `smi`, `molecule` or `structure`.
    pub column: Option<String>,
    /// What separates the fields of a table, an ASCII character; without it a comma, a semicolon, a tab or a bar, by the
    /// header.
    pub separator: Option<u8>,
    /// What becomes of salts and mixtures.
    pub components: Components,
    /// Where large files are kept in a form that is read faster.
    pub cache: Cache,
}

/// Where the binary copy of a large file goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cache {
    /// Beside the file as `<file>.flowcache`, or in `flow-graph` in the user's cache folder where that
    /// cannot be written.
    #[default]
    Beside,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}
