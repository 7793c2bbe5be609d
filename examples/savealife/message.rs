//! The mail about a donation.
//!
//! Pure. Owns its words. Invariant: one recipient, so that nobody sees another's address;
//! and what people typed is text in it, never markup or a header.

use crate::event::News;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::{Address, error::Error};

/// The mail to one donor. Its `Message-ID` is the same whoever makes it.
pub fn announce(news: &News, donor: &str, to: Address, from: &Mailbox) -> Result<Message, Error> {
    let News { donation, city, datetime, address } = news;
    let (day, time) = datetime.split_once('T').unwrap_or((datetime, ""));
    let html = format!(
        "<p>Dear donor,</p>\r\n\
         <p>{city} asks for blood: a new donation event is coming up.</p>\r\n\
         <p>When: {day} {time}<br>\r\nWhere: {address}, {city}</p>\r\n\
         <p>Come and join us. An hour of yours can save a life.</p>\r\n",
        city = escaped(city),
        day = escaped(day),
        time = escaped(time),
        address = escaped(address),
    );
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(format!("New blood donation event in {city}"))
        .message_id(Some(format!("<{donation}.{donor}@savealife>")))
        .header(ContentType::TEXT_HTML)
        .body(html)
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(city: &str, address: &str) -> String {
        let news = News {
            donation: "aa493a26bc8f".to_owned(),
            city: city.to_owned(),
            datetime: "2026-04-06T12:00:00".to_owned(),
            address: address.to_owned(),
        };
        let to = "ada@example.org".parse().unwrap();
        let from = "Save a life <events@example.org>".parse().unwrap();
        let mail = announce(&news, "0123456789ab", to, &from).unwrap();
        String::from_utf8(mail.formatted()).unwrap()
    }

    #[test]
    fn it_says_where_and_when_to_one_donor() {
        let mail = mail("Haarlem", "Main street 1 & 2");
        for part in [
            "Subject: New blood donation event in Haarlem\r\n",
            "To: ada@example.org\r\n",
            "Message-ID: <aa493a26bc8f.0123456789ab@savealife>\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
            "2026-04-06 12:00:00",
            "Main street 1 &amp; 2, Haarlem",
        ] {
            assert!(mail.contains(part), "{part}\n{mail}");
        }
    }

    #[test]
    fn what_people_typed_is_neither_markup_nor_a_header() {
        let mail = mail("x\r\nBcc: eve@example.org", "<script>alert('1')</script>");
        let (headers, text) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!headers.contains("\r\nBcc:"), "{headers}");
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
    }
}
