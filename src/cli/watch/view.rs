//! The picture as lines of text, and how they lie on a screen.
//!
//! Pure: it is told the time, the size and what the keys have chosen. Owns the words and their
//! order. Invariant: every line reads without colours; a colour only repeats what is said.

use super::super::fleet;
use super::keys::{Choice, Sort};
use super::lineage::lineage;
use super::picture::Picture;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use std::time::{Duration, SystemTime};
use streamgate::progress::orders::MoveTo;
use streamgate::progress::{Position, ShardProgress, WorkerId};

/// Before what is said of the shard above.
const REMARK: &str = "      ";

/// What one drawing is made of.
pub struct View<'a> {
    /// The table and the consumer's name.
    pub title: &'a str,
    /// The last picture that could be had.
    pub picture: Option<&'a Picture>,
    /// Why the last look brought none.
    pub trouble: Option<&'a str>,
    pub choice: &'a Choice,
    /// `NO_COLOR` is not set.
    pub colours: bool,
    pub now: SystemTime,
}

/// A row of a table, and whether something is wrong with it.
struct Row {
    cells: Vec<String>,
    /// Stands on a line of its own below the others: it may be long.
    remarks: String,
    is_bad: bool,
    /// Done with, or about nobody.
    is_dim: bool,
}

impl View<'_> {
    /// Draws it; gives how far the lines can be scrolled.
    pub fn draw(&self, frame: &mut Frame<'_>) -> (u16, u16) {
        let trouble = u16::from(self.trouble.is_some());
        let areas = [
            Constraint::Length(1),
            Constraint::Length(trouble),
            Constraint::Min(0),
            Constraint::Length(1),
        ];
        let [head, why, body, foot] = Layout::vertical(areas).areas(frame.area());
        let bold = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(self.head()).style(bold), head);
        if let Some(trouble) = self.trouble {
            let as_of = self.picture.map_or_else(
                || "nothing is known yet".to_owned(),
                |picture| format!("what follows is from {}", ago(picture.at, self.now)),
            );
            let text = format!("{as_of}: {trouble}");
            frame.render_widget(Paragraph::new(text).style(self.bad()), why);
        }
        let mut lines = self.lines();
        if self.trouble.is_some() {
            for line in &mut lines {
                line.style = line.style.add_modifier(Modifier::DIM);
            }
        }
        let width = lines.iter().map(Line::width).max().unwrap_or_default();
        let most =
            |all: usize, shown: u16| u16::try_from(all).unwrap_or(u16::MAX).saturating_sub(shown);
        let most = (most(lines.len(), body.height), most(width, body.width));
        let at = (self.choice.down.min(most.0), self.choice.right.min(most.1));
        frame.render_widget(Paragraph::new(lines).scroll(at), body);
        frame.render_widget(Paragraph::new(self.foot(at.0, most.0)).style(bold), foot);
        most
    }

    fn bad(&self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colours { style.fg(Color::Red) } else { style }
    }

    fn head(&self) -> String {
        let Some(picture) = self.picture else { return format!(" {}", self.title) };
        let workers = &picture.seen.workers;
        let load: u64 = workers.iter().map(|member| member.sign.load).sum();
        let load = if picture.is_whole { format!("  {load} B/s") } else { String::new() };
        let behind = workers.iter().map(|member| member.sign.age_ms).max().unwrap_or_default();
        let open = picture.shards.iter().filter(|shard| shard.position != Position::ShardEnd);
        let time = humantime::format_rfc3339_seconds(picture.at).to_string();
        format!(
            " {}  workers {}  shards {}  behind {}{load}  {}",
            self.title,
            workers.len(),
            open.count(),
            short(Duration::from_millis(behind)),
            time.get(11..).unwrap_or(&time),
        )
    }

    fn foot(&self, at: u16, most: u16) -> String {
        if let Some(text) = &self.choice.typing {
            return format!(" filter: {text}_   Enter keeps it, Esc takes it away");
        }
        let more = if most > 0 { format!("  line {at} of {most}") } else { String::new() };
        let filter = match self.choice.filter.as_str() {
            "" => String::new(),
            text => format!(" ({text})"),
        };
        let sort = self.choice.sort.label();
        format!(" q quit  arrows scroll  s sort: {sort}  / filter{filter}{more}")
    }

    /// Everything below the head.
    fn lines(&self) -> Vec<Line<'static>> {
        let Some(picture) = self.picture else { return Vec::new() };
        let mut lines =
            self.table(&["WORKER", "SHARDS", "BYTES/S", "BEHIND", ""], self.workers(picture));
        lines.push(Line::default());
        let heads = ["SHARD", "STATE", "AGE", "OWNER", "WRITTEN"];
        lines.extend(self.table(&heads, self.shards(picture)));
        let letters = &picture.letters;
        if !letters.is_empty() {
            let records: u64 = letters.iter().map(|listed| listed.letter.records).sum();
            let count = letters.len();
            let text = format!(
                "dead letters: {count}, with {records} records (streamgate dead-letters list)"
            );
            lines.extend([Line::default(), Line::styled(text, self.bad())]);
        }
        let mut rest = String::new();
        fleet::write_reports(&mut rest, &picture.seen);
        fleet::write_orders(&mut rest, &picture.seen.orders);
        lines.extend(rest.lines().map(|line| Line::raw(line.to_owned())));
        lines
    }

    fn workers(&self, picture: &Picture) -> Vec<Row> {
        let leader = picture.seen.stream.as_ref().and_then(|lease| lease.owner.as_ref());
        let row = |member: &streamgate::progress::Member| {
            let sign = &member.sign;
            let leads = (leader == Some(&sign.worker)).then_some("leads");
            let drains = sign.draining.then_some("stopping");
            Row {
                cells: vec![
                    sign.worker.to_string(),
                    sign.shards.to_string(),
                    if picture.is_whole { sign.load.to_string() } else { "-".to_owned() },
                    short(Duration::from_millis(sign.age_ms)),
                    leads.into_iter().chain(drains).collect::<Vec<_>>().join(", "),
                ],
                remarks: String::new(),
                is_bad: false,
                is_dim: false,
            }
        };
        picture.seen.workers.iter().map(row).collect()
    }

    /// The shards that the filter lets through, in the order that was chosen.
    fn shards(&self, picture: &Picture) -> Vec<Row> {
        let mut rows: Vec<(&ShardProgress, Duration, Row)> = lineage(&picture.shards)
            .into_iter()
            .map(|(depth, shard)| {
                let age = self.age(picture, shard);
                (shard, age, self.shard(picture, depth, shard))
            })
            .collect();
        match self.choice.sort {
            Sort::Lineage => {}
            Sort::Age => rows.sort_by_key(|(_, age, _)| std::cmp::Reverse(*age)),
            Sort::Owner => rows.sort_by(|a, b| a.0.lease.owner.cmp(&b.0.lease.owner)),
            Sort::Written => rows.sort_by_key(|(shard, ..)| shard.updated),
        }
        let filter = &self.choice.filter;
        let passes = |(shard, _, row): &(&ShardProgress, Duration, Row)| {
            let owner = shard.lease.owner.as_ref().map(|owner| owner.as_str());
            let cells = row.cells.iter().chain([&row.remarks]).map(String::as_str).chain(owner);
            cells.into_iter().any(|cell| cell.contains(filter.as_str()))
        };
        rows.into_iter().filter(passes).map(|(_, _, row)| row).collect()
    }

    /// How old a shard's oldest record is that is not handled: only its reader knows.
    fn age(&self, picture: &Picture, shard: &ShardProgress) -> Duration {
        let here = picture.here.as_ref().and_then(|here| here.shards.get(shard.shard.as_str()));
        here.map_or(Duration::ZERO, |here| {
            Duration::from_secs_f64(here.iterator_age_seconds.clamp(0.0, 1e9))
        })
    }

    fn shard(&self, picture: &Picture, depth: usize, shard: &ShardProgress) -> Row {
        let is_ended = shard.position == Position::ShardEnd;
        let owner = shard.lease.owner.as_ref().filter(|_| !is_ended);
        let lives = |owner: &WorkerId| {
            picture.seen.workers.iter().any(|member| member.sign.worker == *owner)
        };
        let here = picture.here.as_ref().and_then(|here| here.shards.get(shard.shard.as_str()));
        let here = here.filter(|here| here.owner.as_deref() == owner.map(|owner| owner.as_str()));
        let mut remarks = Vec::new();
        let orders = &picture.seen.orders;
        let paused = orders.pause(&shard.shard).is_some() && !is_ended;
        if let Some(order) = orders.next_move(&shard.shard, shard.order) {
            remarks.push(match order.to {
                MoveTo::Seek(to) => format!("is to go to {to}"),
                MoveTo::Skip(records) => format!("is to skip {records} records"),
            });
        }
        if owner.is_some_and(|owner| !lives(owner)) {
            remarks.push("its owner shows no life".to_owned());
        }
        remarks.extend(here.map(|here| here.remarks()).filter(|text| !text.is_empty()));
        let gaps = shard.gaps.len();
        if gaps > 0 && here.is_none_or(|here| here.gaps == 0) {
            remarks.push(format!("gaps: {gaps}"));
        }
        // What another process retries its sign of life says.
        let is_retried = picture.seen.workers.iter().any(|member| {
            let retrying = &member.sign.report.retrying;
            here.is_none() && retrying.iter().any(|one| one.shard == shard.shard)
        });
        let is_bad = is_retried || !remarks.is_empty();
        let state = match (is_ended, paused, owner, here) {
            (true, ..) => "ended".to_owned(),
            (_, true, ..) => "paused".to_owned(),
            (_, _, None, _) => "nobody".to_owned(),
            (_, _, _, Some(here)) => here.state.clone(),
            _ if is_retried => "retrying".to_owned(),
            _ => "reading".to_owned(),
        };
        if shard.closed && !is_ended {
            remarks.push("closed: its children follow its end".to_owned());
        }
        let indent = "  ".repeat(depth.min(8));
        let elbow = if depth > 0 { "└ " } else { "" };
        Row {
            cells: vec![
                format!("{indent}{elbow}{}", shard.shard),
                state,
                here.filter(|_| !is_ended && !paused)
                    .map_or_else(|| "-".to_owned(), |_| short(self.age(picture, shard))),
                owner.map_or_else(|| "-".to_owned(), |owner| nickname(owner.as_str())),
                if picture.is_whole { ago(shard.updated, self.now) } else { "-".to_owned() },
            ],
            remarks: remarks.join("; "),
            is_bad,
            is_dim: is_ended,
        }
    }

    /// Columns as wide as what stands in them.
    fn table(&self, heads: &[&str], rows: Vec<Row>) -> Vec<Line<'static>> {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row.cells[column].chars().count());
            cells.chain([heads[column].len()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut lines = vec![Line::from(Span::styled(line(heads.to_vec()), bold))];
        for row in rows.iter() {
            let style = match (row.is_bad, row.is_dim) {
                (true, _) => self.bad(),
                (_, true) => Style::new().add_modifier(Modifier::DIM),
                _ => Style::new(),
            };
            let cells = row.cells.iter().map(String::as_str).collect();
            lines.push(Line::styled(line(cells), style));
            if !row.remarks.is_empty() {
                lines.push(Line::styled(format!("{REMARK}{}", row.remarks), style));
            }
        }
        lines
    }
}

/// A worker's name as far as it tells it from the others on a line that has no room for it.
fn nickname(worker: &str) -> String {
    worker.strip_prefix("worker-").unwrap_or(worker).chars().take(8).collect()
}

/// A duration to two of its units.
fn short(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn ago(time: SystemTime, now: SystemTime) -> String {
    format!("{} ago", short(now.duration_since(time).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;
    use streamgate::progress::orders::{Order, Orders, Request};
    use streamgate::progress::report::{Redriving, Retrying};
    use streamgate::progress::{Coordination, Heartbeat, Lease, Member};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn item(shard: &str, parent: Option<&str>, owner: Option<&str>, end: bool) -> ShardProgress {
        let after = Position::After("77".parse().unwrap());
        ShardProgress {
            shard: shard.into(),
            parent: parent.map(Into::into),
            lease: Lease { owner: owner.map(Into::into), counter: 1 },
            since: at(40),
            position: if end { Position::ShardEnd } else { after },
            order: 0,
            updated: at(90),
            closed: false,
            gaps: Vec::new(),
            window: None,
        }
    }

    /// Two workers, a parent with two children of which one is blocked, and one that nobody has.
    fn picture() -> Picture {
        let sign = |name: &str, age_ms| Heartbeat {
            shards: 1,
            load: 4096,
            age_ms,
            ..Heartbeat::first(name.into())
        };
        let workers = [sign("worker-a", 61_500), sign("worker-b", 0)];
        let request =
            Request { order: Order::Pause(Some("shard-3".into())), by: "ann".to_owned(), nonce: 1 };
        let seen = Coordination {
            stream: Some(Lease { owner: Some("worker-a".into()), counter: 3 }),
            seeded: None,
            workers: workers.map(|sign| Member { sign, announced: 0 }).to_vec(),
            orders: Orders::default().with(&request, at(50)).unwrap().unwrap(),
        };
        let shards = vec![
            item("shard-2", Some("shard-1"), Some("worker-a"), false),
            item("shard-1", Some("shard-0"), None, true),
            item("shard-3", Some("shard-1"), Some("worker-b"), false),
            item("shard-4", None, Some("gone"), false),
            ShardProgress { closed: true, ..item("shard-5", None, Some("worker-b"), false) },
        ];
        let letter = json!([{"whole": true, "letter": {
            "id": "shard-1:5-6:0000000000000000", "reason": "retries", "records": 2,
            "attempts": 3, "first_error": null, "last_error": null, "given_up_at": 1000, "bytes": 100,
        }}]);
        let here = json!({"role": "active", "troubles": {}, "shards": {"shard-2": {
            "state": "retrying", "owner": "worker-a", "position": "77",
            "iterator_age_seconds": 61.5, "failed_attempts": 4, "gaps": 0,
        }}});
        Picture {
            at: at(100),
            seen,
            shards,
            letters: serde_json::from_value(letter).unwrap(),
            here: Some(serde_json::from_value(here).unwrap()),
            is_whole: true,
        }
    }

    /// The screen, line by line, and how far it can be scrolled.
    fn drawn(view: &View<'_>, width: u16, height: u16) -> (Vec<String>, (u16, u16)) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut most = (0, 0);
        terminal.draw(|frame| most = view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        ((0..height).map(|y| line(y).trim_end().to_owned()).collect(), most)
    }

    fn view<'a>(picture: Option<&'a Picture>, choice: &'a Choice) -> View<'a> {
        let (title, trouble) = ("mails of orders", None);
        View { title, picture, trouble, choice, colours: false, now: at(105) }
    }

    #[test]
    fn a_screen_of_80_by_24_has_workers_lineage_letters_and_orders() {
        let (picture, choice) = (picture(), Choice::default());
        let (lines, most) = drawn(&view(Some(&picture), &choice), 80, 24);
        let expected = [
            " mails of orders  workers 2  shards 4  behind 1m 1s  8192 B/s  00:01:40Z",
            "WORKER    SHARDS  BYTES/S  BEHIND",
            "worker-a  1       4096     1m 1s   leads",
            "worker-b  1       4096     0s",
            "",
            "SHARD        STATE     AGE    OWNER  WRITTEN",
            "shard-1      ended     -      -      15s ago",
            "  └ shard-2  retrying  1m 1s  a      15s ago",
            "      batch failed 4 times, trying again",
            "  └ shard-3  paused    -      b      15s ago",
            "shard-4      reading   -      gone   15s ago",
            "      its owner shows no life",
            "shard-5      reading   -      b      15s ago",
            "      closed: its children follow its end",
            "",
            "dead letters: 1, with 2 records (streamgate dead-letters list)",
            "",
            "shard shard-3 is paused, as ann asked 1970-01-01T00:00:50Z",
            "",
            "asked last:",
            "  1970-01-01T00:00:50Z ann: pause shard shard-3",
            "",
            "",
            " q quit  arrows scroll  s sort: lineage  / filter",
        ];
        assert_eq!(lines, expected);
        assert_eq!(most, (0, 0), "all of it");
        let right = Choice { right: 8, ..Choice::default() };
        let (lines, most) = drawn(&view(Some(&picture), &right), 30, 24);
        assert_eq!(most.1, 32);
        assert!(lines[7].starts_with("d-2  retrying  1m 1s"), "{}", lines[7]);
    }

    #[test]
    fn what_another_process_says_of_itself_is_shown_too() {
        let (mut picture, choice) = (picture(), Choice::default());
        let report = &mut picture.seen.workers[1].sign.report;
        let error = "status 500".to_owned();
        report.retries(vec![Retrying {
            shard: "shard-5".into(),
            attempts: 7,
            error,
            since: at(60),
        }]);
        report.redriving = Some(Redriving { id: 3, of: 9, tried: 4 });
        let (lines, _) = drawn(&view(Some(&picture), &choice), 90, 40);
        let has = |text: &str| assert!(lines.iter().any(|line| line.contains(text)), "{lines:#?}");
        has("shard-5      retrying  -      b ");
        has("shard shard-5: batch failed 7 times, trying again: status 500");
        has("dead letters are handed over again: 4 of 9");
    }

    #[test]
    fn a_small_screen_scrolls_and_shards_are_sorted_and_filtered() {
        let picture = picture();
        let choice = Choice { down: u16::MAX, ..Choice::default() };
        let (lines, most) = drawn(&view(Some(&picture), &choice), 70, 6);
        assert_eq!(most.0, 16);
        assert!(lines[4].ends_with("pause shard shard-3"), "{lines:?}");
        assert!(lines[5].ends_with("line 16 of 16"), "{lines:?}");
        let shards = |sort, filter: &str| -> Vec<String> {
            let choice = Choice { sort, filter: filter.to_owned(), ..Choice::default() };
            let (lines, _) = drawn(&view(Some(&picture), &choice), 80, 24);
            let names =
                lines.iter().filter_map(|line| line.split(' ').find(|w| w.starts_with("shard-")));
            names.take_while(|name| *name != "shard-3,").map(str::to_owned).collect()
        };
        assert_eq!(shards(Sort::Age, "")[0], "shard-2", "the one that is behind");
        assert_eq!(shards(Sort::Owner, "shard-4")[0], "shard-4");
        assert_eq!(shards(Sort::Lineage, "no life")[0], "shard-4");
        let typing = Choice { typing: Some("wor".to_owned()), ..Choice::default() };
        let (lines, _) = drawn(&view(Some(&picture), &typing), 80, 24);
        assert!(lines[23].starts_with(" filter: wor_"), "{}", lines[23]);
    }

    #[test]
    fn what_cannot_be_had_is_said_and_what_is_old_says_so() {
        let (picture, choice) = (picture(), Choice::default());
        let why = Some("the api: no answer");
        let (lines, _) = drawn(&View { trouble: why, ..view(Some(&picture), &choice) }, 80, 24);
        assert_eq!(lines[1], "what follows is from 5s ago: the api: no answer");
        assert!(lines[2].starts_with("WORKER"));
        let (lines, _) = drawn(&View { trouble: why, ..view(None, &choice) }, 80, 24);
        assert_eq!(lines[1], "nothing is known yet: the api: no answer");
        assert_eq!(lines[0], " mails of orders");
    }

    #[test]
    fn colours_only_repeat_what_is_said() {
        let (picture, choice) = (picture(), Choice::default());
        let coloured = |colours| {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            let view = View { colours, ..view(Some(&picture), &choice) };
            terminal
                .draw(|frame| {
                    view.draw(frame);
                })
                .unwrap();
            let buffer = terminal.backend().buffer().clone();
            buffer.content().iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert_eq!(coloured(false), 0);
        assert!(coloured(true) > 0);
    }
}
