// SPDX-License-Identifier: MPL-2.0

//! The files that a description's `{file}` stands for, one at each start.

use std::path::{Path, PathBuf};

/// Where a file's name goes in the description.
pub(super) const PLACE: &str = "{file}";
/// More are not looked at.
const MOST: usize = 100_000;

/// Goes through a folder's files in the order of their names, and again.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    pattern: String,
    last: Option<String>,
}

impl Files {
    /// `FOLDER/PATTERN`, in whose last part `*` stands for anything.
    pub(super) fn new(text: &str) -> Self {
        let path = Path::new(text);
        let pattern = path.file_name().unwrap_or_default();
        Self {
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            pattern: pattern.to_string_lossy().into_owned(),
            last: None,
        }
    }

    /// The next file, as what is there now has it.
    pub(super) fn next(&mut self) -> Result<PathBuf, String> {
        let folder = match self.folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => &self.folder,
        };
        let place = || format!("{}/{}", folder.display(), self.pattern);
        let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", place()))?;
        let names = entries.flatten().take(MOST).filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            (matches(&self.pattern, &name) && entry.path().is_file()).then_some(name)
        });
        let names: Vec<_> = names.collect();
        let after = |name: &&String| self.last.as_ref().is_none_or(|last| *name > last);
        let next = names.iter().filter(after).min().or(names.iter().min());
        let next = next.ok_or_else(|| format!("{}: there is no such file", place()))?;
        self.last = Some(next.clone());
        Ok(folder.join(next))
    }
}

/// A description with the file's name in it, in quotes that it understands.
pub(super) fn describe(description: &str, file: &Path) -> String {
    let name = file.to_string_lossy().replace('\\', "\\\\");
    let quoted = format!("\"{}\"", name.replace('"', "\\\""));
    description.replace(PLACE, &quoted)
}

/// Whether a name is what a pattern says. Names that begin with a dot are hidden.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("*.mp4", "a.mp4", true),
            ("*.mp4", "a.mp4.part", false),
            ("*", "a", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_come_in_the_order_of_their_names_and_again() {
        let folder = std::env::temp_dir().join(format!("supervisor-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = |file: &str| folder.join(file);
        let mut files = Files::new(name("*.mp4").to_str().unwrap());
        assert!(files.next().unwrap_err().contains("no such file"));
        for file in ["b.mp4", "d.mp4", "a.txt"] {
            std::fs::write(name(file), "").unwrap();
        }
        let mut next = || files.next().unwrap().file_name().unwrap().to_owned();
        assert_eq!([next(), next(), next()], ["b.mp4", "d.mp4", "b.mp4"]);
        // What comes or goes meanwhile is followed.
        std::fs::write(name("c.mp4"), "").unwrap();
        std::fs::remove_file(name("b.mp4")).unwrap();
        assert_eq!([next(), next(), next()], ["c.mp4", "d.mp4", "c.mp4"]);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(files.next().is_err());
    }

    #[test]
    fn whatever_a_file_is_called_it_is_one_value() {
        let described = describe(
            "filesrc location={file} ! fakesink",
            Path::new("/a \"b\\c ! d"),
        );
        assert_eq!(described, r#"filesrc location="/a \"b\\c ! d" ! fakesink"#);
    }
}
