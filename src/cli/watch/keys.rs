//! What the keys have chosen: where the text is scrolled to, how shards are sorted, which are
//! shown.
//!
//! Pure. Invariant: what is scrolled to is there, once it was drawn.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a page key scrolls by.
const PAGE: u16 = 10;
/// What an arrow to the side scrolls by.
const SIDE: u16 = 8;

/// By what shards are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Each below its parent.
    #[default]
    Lineage,
    /// The furthest behind first.
    Age,
    /// By who reads them.
    Owner,
    /// Whose position was not written for longest first.
    Written,
}

impl Sort {
    pub fn label(self) -> &'static str {
        match self {
            Self::Lineage => "lineage",
            Self::Age => "age",
            Self::Owner => "owner",
            Self::Written => "written",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Lineage => Self::Age,
            Self::Age => Self::Owner,
            Self::Owner => Self::Written,
            Self::Written => Self::Lineage,
        }
    }
}

/// What was chosen.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    pub down: u16,
    pub right: u16,
    pub sort: Sort,
    /// Shards are shown in whose line this stands; all, for none.
    pub filter: String,
    /// The filter that is being typed.
    pub typing: Option<String>,
}

impl Choice {
    /// Takes a key in; gives whether it ends the watching.
    pub fn press(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if with_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return true;
        }
        if let Some(mut text) = self.typing.take() {
            match key.code {
                KeyCode::Enter => return self.show(text),
                KeyCode::Esc => return self.show(String::new()),
                KeyCode::Backspace => drop(text.pop()),
                KeyCode::Char(letter) if !with_control => text.push(letter),
                _ => {}
            }
            self.typing = Some(text);
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Esc => return self.show(String::new()),
            KeyCode::Up | KeyCode::Char('k') => self.down = self.down.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.down = self.down.saturating_add(1),
            KeyCode::PageUp => self.down = self.down.saturating_sub(PAGE),
            KeyCode::PageDown | KeyCode::Char(' ') => self.down = self.down.saturating_add(PAGE),
            KeyCode::Home | KeyCode::Char('g') => (self.down, self.right) = (0, 0),
            KeyCode::End | KeyCode::Char('G') => self.down = u16::MAX,
            KeyCode::Left | KeyCode::Char('h') => self.right = self.right.saturating_sub(SIDE),
            KeyCode::Right | KeyCode::Char('l') => self.right = self.right.saturating_add(SIDE),
            _ => {}
        }
        false
    }

    fn show(&mut self, filter: String) -> bool {
        (self.filter, self.down) = (filter, 0);
        false
    }

    /// The text goes on so far beyond the screen, and no further.
    pub fn bounded(&mut self, (down, right): (u16, u16)) {
        (self.down, self.right) = (self.down.min(down), self.right.min(right));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(choice: &mut Choice, code: KeyCode) -> bool {
        choice.press(KeyEvent::from(code))
    }

    #[test]
    fn keys_scroll_sort_filter_and_quit() {
        let mut choice = Choice::default();
        for code in [KeyCode::Down, KeyCode::Down, KeyCode::Up, KeyCode::PageDown, KeyCode::Right] {
            assert!(!press(&mut choice, code));
        }
        assert_eq!((choice.down, choice.right), (11, 8));
        choice.bounded((5, 80));
        assert_eq!((choice.down, choice.right), (5, 8));
        press(&mut choice, KeyCode::End);
        choice.bounded((5, 80));
        press(&mut choice, KeyCode::Up);
        assert_eq!(choice.down, 4, "at the end at once, not after 65,000 lines");
        let sorts = [0; 4].map(|_| {
            press(&mut choice, KeyCode::Char('s'));
            choice.sort
        });
        assert_eq!(sorts, [Sort::Age, Sort::Owner, Sort::Written, Sort::Lineage]);
        for code in [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('7'), KeyCode::Backspace]
        {
            assert!(!press(&mut choice, code), "a letter that is typed is no key");
        }
        assert_eq!((choice.typing.as_deref(), choice.filter.as_str()), (Some("q"), ""));
        press(&mut choice, KeyCode::Enter);
        assert_eq!((choice.typing.as_deref(), choice.filter.as_str(), choice.down), (None, "q", 0));
        press(&mut choice, KeyCode::Char('/'));
        press(&mut choice, KeyCode::Esc);
        assert_eq!((choice.typing.as_deref(), choice.filter.as_str()), (None, ""));
        assert!(press(&mut choice, KeyCode::Char('q')));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(choice.press(control), "the terminal sends no signal meanwhile");
    }
}
