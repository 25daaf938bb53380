//! The name in a client certificate, or why nobody can be sure of it. No I/O.

use std::{fmt::Write as _, net::IpAddr};

use data_encoding::HEXLOWER;
use x509_parser::{
    asn1_rs::{Any, Tag},
    certificate::X509Certificate,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::context::CertificateNames;

/// The common name of the subject; if there is none, the first DNS name, URI or e-mail address of the alternative names;
/// `None` when there is none of those either.
///
/// The authority vouches for the name it wrote. One that can be read in two ways never gives way to the next: whoever can have
/// the next one signed would then choose which counts.
///
/// # Errors
/// Why it cannot be told, in words for the device and the log.
pub(super) fn name_of(certificate: &X509Certificate<'_>) -> Result<Option<String>, &'static str> {
    let mut common_names = certificate.subject().iter_common_name();
    if let Some(name) = common_names.next() {
        if common_names.next().is_some() {
            return Err("the client certificate has several common names");
        }
        let name = decode(name.attr_value()).ok_or(UNREADABLE)?;
        return checked(name).map(Some);
    }
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|_| UNREADABLE)?;
    let mut names = alternative.iter().flat_map(|a| &a.value.general_names);
    let name = names.find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some(Ok((*name).to_owned()))
        }
        GeneralName::Invalid(..) => Some(Err(UNREADABLE)),
        _ => None, // an address, say
    });
    name.map(|name| checked(name?)).transpose()
}

/// All names in a certificate, as far as they can be read: whoever decides by them has the whole to look at.
pub(super) fn names_of(certificate: &X509Certificate<'_>) -> CertificateNames {
    let subject = certificate.subject();
    let mut organizations = subject.iter_organization();
    let organization = organizations.next().and_then(|o| decode(o.attr_value()));
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let sans = alternative.iter().flat_map(|a| &a.value.general_names);
    let sans = sans
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                Some((*name).to_owned())
            }
            GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect();
    CertificateNames {
        subject: subject_of(subject),
        organization: organization.filter(|_| organizations.next().is_none()),
        sans,
    }
}

/// A subject as text, in the order of the certificate. Values are escaped as in RFC 4514: whoever looks for `CN=` finds none that
/// stands within another value.
fn subject_of(name: &X509Name<'_>) -> String {
    let attributes = |rdn: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        let attributes: Vec<_> = rdn.iter().map(attribute).collect();
        attributes.join(" + ")
    };
    let rdns: Vec<_> = name.iter().map(attributes).collect();
    rdns.join(", ")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let mut text = match oid2abbrev(kind, oid_registry()) {
        Ok(short) => format!("{short}="),
        Err(_) => format!("{kind}="),
    };
    match decode(attribute.attr_value()) {
        Some(value) => escape(&mut text, &value),
        None => text += &format!("#{}", HEXLOWER.encode(attribute.attr_value().data)),
    }
    text
}

fn escape(text: &mut String, value: &str) {
    let end = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' => text.extend(['\\', c]),
            ' ' if at == 0 || at == end => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02x}"); // a String takes all
                }
            }
            c => text.push(c),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The text of a string, by its type (X.680 §41). A type whose characters are in doubt is read as far as they are not.
fn decode(value: &Any<'_>) -> Option<String> {
    if value.header.is_constructed() {
        return None; // DER has no strings in pieces
    }
    let bytes = value.data;
    let ascii = || {
        let text = std::str::from_utf8(bytes).ok()?;
        text.is_ascii().then(|| text.to_owned())
    };
    match value.tag() {
        Tag::Utf8String => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => ascii(),
        // T.61 by the standard, Latin-1 by most programs: both have these characters of ASCII.
        Tag::T61String => ascii().filter(|text| !text.contains(NOT_IN_T61)),
        Tag::BmpString => {
            let units = chunks(bytes)?.map(u16::from_be_bytes);
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString => {
            let points = chunks(bytes)?.map(u32::from_be_bytes);
            points.map(char::from_u32).collect()
        }
        _ => None,
    }
}

/// All of them, or nothing when some bytes are left over.
fn chunks<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let (chunks, rest) = bytes.as_chunks();
    rest.is_empty().then(|| chunks.iter().copied())
}

/// Refuses what one program takes for another name than the next does: `dev1` with a NUL or a space behind it.
fn checked(name: String) -> Result<String, &'static str> {
    if name.is_empty() {
        Err("the name in the client certificate is empty")
    } else if name.contains(char::is_control) || name.trim() != name {
        Err("the name in the client certificate has control characters, or white space at an end")
    } else {
        Ok(name)
    }
}

const UNREADABLE: &str = "the name in the client certificate cannot be read";
const NOT_IN_T61: [char; 8] = ['#', '$', '\\', '^', '`', '{', '}', '~'];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
    use x509_parser::prelude::FromDer;

    use super::*;

    /// The name of a certificate with these common names, each a type of string and its content, and these alternative names.
    fn name(common: &[(Tag, &[u8])], alternative: &[SanType]) -> Option<String> {
        certified(common, alternative).unwrap_or_else(|why| Some(format!("refused: {why}")))
    }

    fn certified(
        common: &[(Tag, &[u8])],
        alternative: &[SanType],
    ) -> Result<Option<String>, &'static str> {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = alternative.to_vec();
        params.distinguished_name = DistinguishedName::new();
        let same = DnType::CustomDnType(vec![2, 5, 4, 3]); // so that the second does not replace the first
        for ((_, content), kind) in common.iter().zip([DnType::CommonName, same]) {
            params
                .distinguished_name
                .push(kind, "?".repeat(content.len()));
        }
        let key = KeyPair::generate().unwrap();
        let mut der = params.self_signed(&key).unwrap().der().to_vec();
        let places: Vec<_> = (0..der.len())
            .filter(|at| der[*at..].starts_with(COMMON_NAME))
            .collect();
        assert_eq!(places.len(), 2 * common.len(), "of the issuer, too");
        for (at, (tag, content)) in places.into_iter().zip([common, common].concat()) {
            let value = at + COMMON_NAME.len();
            assert_eq!(usize::from(der[value]), content.len());
            der[value - 1] = tag.0 as u8;
            der[value + 1..][..content.len()].copy_from_slice(content);
        }
        name_of(&X509Certificate::from_der(&der).unwrap().1)
    }

    /// The object identifier and the tag of a UTF8String.
    const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3, 0x0c];

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn a_common_name_is_read_in_every_type_of_string_and_never_gives_way() {
        let victim = [dns("victim")];
        let is = |tag, content: &[u8], expected: &str| {
            let name = name(&[(tag, content)], &victim);
            assert_eq!(name.as_deref(), Some(expected), "{tag} {content:?}");
        };
        is(Tag::Utf8String, "dev 1 é".as_bytes(), "dev 1 é");
        for tag in [
            Tag::PrintableString,
            Tag::Ia5String,
            Tag::NumericString,
            Tag::VisibleString,
            Tag::T61String,
        ] {
            is(tag, b"dev1", "dev1");
            is(tag, "dév1".as_bytes(), UNREAD);
            is(tag, b"d\xe9v1", UNREAD);
        }
        is(Tag::Ia5String, b"dev#1", "dev#1");
        is(Tag::T61String, b"dev#1", UNREAD);
        is(Tag::BmpString, b"\0d\0e\0v\x01\x53", "devœ");
        is(Tag::BmpString, b"\xd8\x3d\xdd\x0c", "🔌");
        is(Tag::BmpString, b"\0d\xd8\x3d", UNREAD);
        is(Tag::BmpString, b"\0d\0", UNREAD);
        is(Tag::UniversalString, b"\0\0\0d\0\x01\xf5\x0c", "d🔌");
        is(Tag::UniversalString, b"\0\0\xd8\0", UNREAD);
        is(Tag::UniversalString, b"\0\0\0", UNREAD);
        is(Tag::Utf8String, b"d\xe9v1", UNREAD);
        // What is no string, or one in pieces.
        for tag in [Tag::OctetString, Tag::Integer, Tag(0x2c), Tag(0x80)] {
            is(tag, b"dev1", UNREAD);
        }
    }

    #[test]
    fn a_name_that_two_programs_read_differently_is_refused() {
        for content in [
            &b"dev1\0"[..],
            b"\0dev1",
            b"dev1\n",
            b"de\x7fv1",
            "de\u{85}v1".as_bytes(),
            b"dev1 ",
            b" dev1",
            "dev1\u{a0}".as_bytes(),
            b"",
            b" ",
        ] {
            let name = name(&[(Tag::Utf8String, content)], &[dns("victim")]).unwrap();
            assert!(
                name.starts_with("refused: the name in"),
                "{content:?}: {name}"
            );
        }
        assert_eq!(
            name(&[(Tag::BmpString, b"\0d\0\0")], &[]).unwrap(),
            format!("refused: {}", checked("d\0".into()).unwrap_err())
        );
        let two = [(Tag::Utf8String, &b"dev1"[..]), (Tag::Utf8String, b"dev2")];
        let twice = [two[0], two[0]];
        for names in [two, twice] {
            let refused = "refused: the client certificate has several common names";
            assert_eq!(name(&names, &[dns("victim")]).unwrap(), refused);
        }
    }

    #[test]
    fn without_a_common_name_the_first_alternative_name_that_is_text_counts() {
        let uri = || SanType::URI("urn:dev:1".try_into().unwrap());
        let mail = SanType::Rfc822Name("dev1@example.com".try_into().unwrap());
        let address = || SanType::IpAddress([127, 0, 0, 1].into());
        let other = SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "dev9".into()));
        for (names, expected) in [
            (vec![dns("dev1"), uri()], Some("dev1")),
            (
                vec![address(), other.clone(), uri(), dns("dev2")],
                Some("urn:dev:1"),
            ),
            (vec![mail], Some("dev1@example.com")),
            (vec![address(), other], None),
            (vec![], None),
        ] {
            assert_eq!(name(&[], &names).as_deref(), expected, "{names:?}");
        }
    }

    #[test]
    fn all_names_are_there_for_who_decides_by_them() {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "CP001");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Exämple");
        let uri = SanType::URI("urn:dev:1".try_into().unwrap());
        params.subject_alt_names = vec![
            dns("cp1.example"),
            uri,
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let names = names_of(&X509Certificate::from_der(certificate.der()).unwrap().1);
        assert_eq!(names.organization.as_deref(), Some("Exämple"));
        assert_eq!(names.sans, ["cp1.example", "urn:dev:1", "127.0.0.1"]);
        assert!(names.subject.contains("CN=CP001"), "{}", names.subject);
    }

    #[test]
    fn no_value_of_a_subject_looks_like_another_attribute() {
        let subject = |organization: &str| {
            let mut params = CertificateParams::new([]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            let pairs = [
                (DnType::OrganizationName, organization),
                (DnType::CommonName, "CP 1"),
            ];
            for (kind, value) in pairs {
                params.distinguished_name.push(kind, value);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
            names_of(&certificate).subject
        };
        for (organization, escaped) in [
            ("Exämple", "Exämple"),
            ("A, CN=CP002", r"A\, CN\=CP002"),
            ("A + CN=CP002", r"A \+ CN\=CP002"),
            (r#"\"#, r"\\"),
            (r#"<"a";b>"#, r#"\<\"a\"\;b\>"#),
            (" # ", r"\ #\ "),
            ("#1", r"\#1"),
            ("a\u{0}\n\u{85}", r"a\00\0a\c2\85"),
        ] {
            assert_eq!(subject(organization), format!("O={escaped}, CN=CP 1"));
        }
    }

    #[test]
    fn an_alternative_name_that_cannot_be_read_does_not_give_way_either() {
        // GeneralNames: a dNSName that is no IA5String, or has a NUL in it, before one that is fine.
        for bad in [&b"d\xe9v"[..], b"de\0"] {
            let content = [&[0x30, 12, 0x82, 3][..], bad, &[0x82, 5], b"dev22"].concat();
            let mut params = CertificateParams::new([]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            params.custom_extensions = vec![extension];
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
            assert!(name_of(&certificate).is_err(), "{bad:?}");
        }
    }

    const UNREAD: &str = "refused: the name in the client certificate cannot be read";
}
