//! Names of generated organizations. Many are awkward on purpose; Postgres can store all of them.

/// First parts of names.
pub(super) const NAMES: &[&str] = &[
    "Acme",
    "Globex",
    "Initech",
    "Umbrella",
    "Hooli",
    "Vehement Capital",
    "Massive Dynamic",
    "Müller & Söhne",
    "Łódź Fabryka",
    "Société Générale d'Essais",
    "株式会社サンプル",
    "شركة المثال",
    "חברה לדוגמה",
    "ООО Ромашка",
    "O'Brien Brothers",
    "\"Quoted\"",
    "back\\slash",
    "<b>Bold</b>",
    "Null",
    "🦀 Crab",
    "Tab\there",
    "  Spaces  ",
    "x",
];

/// Last parts of names.
pub(super) const FORMS: &[&str] = &[
    "",
    " Inc.",
    " GmbH",
    ", Ltd.",
    " S.A.",
    " AG",
    " LLC",
    " B.V.",
    " 有限公司",
];
