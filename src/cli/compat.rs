//! What becomes of each word that `-o` may hold, from the one table in `options`: for man pages and
//! for docs/COMPAT.md. A test holds page and table together.

use super::options::{GROUPS, Group, Treatment};

/// What becomes of one word.
#[derive(Debug)]
pub struct Word {
    /// Who speaks it.
    pub group: &'static str,
    /// The word itself.
    pub word: &'static str,
    /// `works`, `accepted`, `refused` and the like.
    pub verdict: &'static str,
    /// What it does, or why it does nothing.
    pub how: String,
}

/// All words that `-o` may hold and what becomes of them, in the order of the table.
pub fn option_words() -> Vec<Word> {
    let of_group = |group: &'static Group| group.rows.iter().map(move |row| explain(group, row));
    GROUPS.iter().flat_map(of_group).collect()
}

fn explain(group: &'static Group, (word, treatment): &(&'static str, Treatment)) -> Word {
    let one_of = |allowed: &[&str]| {
        let all: Vec<String> = allowed.iter().map(|v| format!("`{word}={v}`")).collect();
        all.join(", ")
    };
    let (verdict, how) = match treatment {
        Treatment::Ours(setting) => ("works", setting.meaning().to_owned()),
        Treatment::Set(_) => ("works", "sets the flag".to_owned()),
        Treatment::Clear(_) => ("works", "clears the flag".to_owned()),
        Treatment::Accept => ("accepted", group.accepted.to_owned()),
        Treatment::Moot(why) => ("accepted", (*why).to_owned()),
        Treatment::Warn(why) => ("no effect, logged", (*why).to_owned()),
        Treatment::WarnUnless(allowed, why) => (
            "no effect, logged",
            format!("{why}; {} accepted", one_of(allowed)),
        ),
        Treatment::Refuse(why) => ("refused", (*why).to_owned()),
    };
    Word {
        group: group.title,
        word,
        verdict,
        how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between these two lines of the page is written by [`tables`].
    const BEGIN: &str = "<!-- generated from src/cli/options.rs: begin -->\n";
    const END: &str = "<!-- generated from src/cli/options.rs: end -->\n";

    /// All words, as Markdown.
    fn tables() -> String {
        let mut out = String::new();
        let mut last = "";
        for word in option_words() {
            if word.group != last {
                last = word.group;
                out += &format!("\n### {last}\n\n| option | | |\n|---|---|---|\n");
            }
            out += &format!("| `{}` | {} | {} |\n", word.word, word.verdict, word.how);
        }
        out
    }

    /// With UNIONMOUNT_UPDATE in the environment the page is written anew instead.
    #[test]
    fn the_page_says_what_the_code_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/COMPAT.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once(BEGIN).unwrap();
        let (written, tail) = rest.split_once(END).unwrap();
        if std::env::var_os("UNIONMOUNT_UPDATE").is_some() {
            std::fs::write(path, format!("{head}{BEGIN}{}\n{END}{tail}", tables())).unwrap();
            return;
        }
        assert!(
            written == format!("{}\n", tables()),
            "docs/COMPAT.md is not what src/cli/options.rs says: run\n  UNIONMOUNT_UPDATE=1 cargo test \
             --lib the_page_says_what_the_code_does"
        );
    }

    #[test]
    fn no_cell_is_empty() {
        for line in tables().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 3, "{line}");
            assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{line}");
        }
    }
}
