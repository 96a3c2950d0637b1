//! The words of the demo's reviews, and what each is worth.
//!
//! Worth (a signed whole number) runs from -3 to 3: 2 is an ordinary word of praise, 3 a strong one. Grammar and judge
//! read the same tables and nothing else of each other.

use std::{collections::HashMap, sync::LazyLock};

/// Ordinary praise: worth 2.
pub(super) const GOOD: &[&str] = &[
    "good", "nice", "solid", "sturdy", "reliable", "comfortable", "handy", "practical", "pleasant", "neat",
    "elegant", "durable", "useful", "clever", "smooth", "generous", "precise", "tidy", "stylish", "cozy",
];

/// Strong praise: worth 3.
pub(super) const EXCELLENT: &[&str] = &[
    "excellent", "great", "wonderful", "fantastic", "superb", "perfect", "brilliant", "amazing", "outstanding",
    "beautiful", "lovely", "splendid", "impressive",
];

/// Ordinary blame: worth -2.
pub(super) const BAD: &[&str] = &[
    "bad", "poor", "flimsy", "weak", "noisy", "ugly", "clumsy", "unreliable", "uncomfortable", "fragile", "sloppy",
    "dull", "wobbly", "crooked", "faulty", "confusing", "rough", "shabby", "brittle", "cramped",
];

/// Strong blame: worth -3.
pub(super) const TERRIBLE: &[&str] = &[
    "terrible", "awful", "horrible", "useless", "dreadful", "dismal", "defective", "disappointing", "miserable",
    "hopeless", "atrocious",
];

/// Neither praise nor blame: worth nothing.
pub(super) const PLAIN: &[&str] = &[
    "average", "ordinary", "standard", "plain", "typical", "usual", "normal", "basic", "common", "regular",
];

/// How a thing works, well or badly: worth 2 and -2.
pub(super) const WELL: &[&str] = &[
    "well", "nicely", "perfectly", "smoothly", "reliably", "beautifully", "flawlessly",
];
pub(super) const BADLY: &[&str] = &["badly", "poorly", "erratically", "clumsily", "miserably"];

/// What one does to a thing, after "I" and after "my sister": worth 2 and -2.
pub(super) const LIKE: &[(&str, &str)] = &[
    ("like", "likes"), ("love", "loves"), ("enjoy", "enjoys"), ("adore", "adores"), ("admire", "admires"),
];
pub(super) const HATE: &[(&str, &str)] = &[
    ("hate", "hates"), ("dislike", "dislikes"), ("detest", "detests"), ("resent", "resents"),
];

/// How one feels about a thing: worth 2 and -2.
pub(super) const HAPPY: &[&str] = &["happy", "pleased", "delighted", "satisfied", "impressed"];
pub(super) const UNHAPPY: &[&str] = &["unhappy", "annoyed", "disappointed", "frustrated", "upset"];

/// Words of the fixed phrases that carry their worth.
pub(super) const OTHERS: &[(&str, i32)] = &[
    ("recommend", 2), ("worth", 2), ("bargain", 2), ("better", 2), ("saves", 2), ("joy", 3), ("treasure", 3),
    ("early", 1), ("smile", 2), ("favorite", 3), ("exceeded", 3), ("compliments", 2), ("gladly", 1), ("easy", 2),
    ("fits", 1), ("broke", -3), ("leaks", -2), ("cracked", -2), ("stopped", -2), ("refund", -3), ("worse", -2),
    ("waste", -3), ("late", -1), ("regret", -2), ("problem", -2), ("damage", -2), ("scratched", -2), ("smells", -2),
    ("garbage", -3), ("apart", -2), ("rattles", -2), ("complaints", -2),
];

/// Before a word of worth: one more, or one less, in its own direction.
pub(super) const INTENSIFIERS: &[&str] = &["very", "really", "truly", "extremely", "incredibly", "remarkably"];
pub(super) const HEDGES: &[&str] = &["fairly", "slightly", "somewhat", "rather", "mildly"];

/// Turn what follows in their clause into its opposite, of worth 1.
pub(super) const NEGATIONS: &[&str] = &["not", "never", "no", "hardly", "without"];

/// Things that are reviewed, by kind, with parts of their own; a part ending in `+` is a plural.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// What they are called.
    pub(super) products: &'static [&'static str],
    /// What they are made of.
    pub(super) parts: &'static [&'static str],
}

/// The kinds of products.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        products: &["kettle", "toaster", "blender", "teapot", "mixer", "grinder", "coffee maker"],
        parts: &["handle", "lid", "cord", "base", "switch", "timer", "buttons+", "knobs+"],
    },
    Kind {
        products: &["keyboard", "speaker", "camera", "phone", "monitor", "printer", "tablet", "radio"],
        parts: &["screen", "battery", "sound", "cable", "charger", "display", "menus+", "controls+"],
    },
    Kind {
        products: &["jacket", "sweater", "coat", "shirt", "hoodie", "raincoat"],
        parts: &["fabric", "collar", "lining", "stitching", "cut", "hood", "sleeves+", "pockets+", "seams+"],
    },
    Kind {
        products: &["tent", "backpack", "sleeping bag", "lantern", "cooler", "hammock", "bicycle"],
        parts: &["frame", "strap", "zipper", "padding", "cover", "hooks+", "buckles+", "clips+"],
    },
    Kind {
        products: &["lamp", "chair", "desk", "shelf", "mattress", "sofa", "stool", "mirror"],
        parts: &["surface", "finish", "wood", "back", "edge", "legs+", "corners+", "screws+"],
    },
];

/// What every product has.
pub(super) const COMMON_PARTS: &[&str] = &[
    "quality", "price", "design", "color", "size", "weight", "packaging", "shape", "manual", "material", "texture",
    "instructions+", "details+", "service",
];

/// People who have an opinion.
pub(super) const PEOPLE: &[&str] = &[
    "sister", "brother", "mother", "father", "wife", "husband", "daughter", "son", "aunt", "uncle", "neighbor",
    "friend", "roommate", "boss", "grandmother", "cousin",
];

/// When a thing was got.
pub(super) const TIMES: &[&str] = &[
    "last week", "last month", "last year", "in spring", "in summer", "in autumn", "in winter", "on Monday", "on Friday",
    "two weeks ago", "three days ago", "for my birthday", "before the holidays", "yesterday",
];

/// How long a thing was used.
pub(super) const DURATIONS: &[&str] = &[
    "a week", "two weeks", "a month", "three months", "half a year", "a year", "two years", "several days", "ten days",
];

/// How often a thing is used.
pub(super) const FREQUENCIES: &[&str] = &[
    "every day", "every morning", "every evening", "every weekend", "twice a week", "at work", "at home", "on the road", "in the office", "once a month",
];

/// Where a thing stands or was bought.
pub(super) const ROOMS: &[&str] = &[
    "kitchen", "bedroom", "office", "garage", "garden", "hall", "cabin", "basement", "studio", "attic",
];
pub(super) const SHOPS: &[&str] = &[
    "online", "at the market", "from a small shop", "in the city", "from a friend", "at the mall",
];
pub(super) const COLORS: &[&str] = &[
    "red", "blue", "green", "black", "white", "gray", "brown", "yellow", "silver", "purple", "orange",
];
pub(super) const ORDINALS: &[&str] = &["first", "second", "third", "fourth"];
pub(super) const JOBS: &[&str] = &[
    "teacher", "nurse", "student", "driver", "cook", "gardener", "painter", "writer", "carpenter", "baker",
];

/// Returns what a lower-case word is worth, if anything.
pub(super) fn worth(word: &str) -> Option<i32> {
    WORTH.get(word).copied()
}

static WORTH: LazyLock<HashMap<&'static str, i32>> = LazyLock::new(|| {
    let mut worth: HashMap<&str, i32> = OTHERS.iter().copied().collect();
    for (words, value) in [
        (GOOD, 2),
        (EXCELLENT, 3),
        (BAD, -2),
        (TERRIBLE, -3),
        (WELL, 2),
        (BADLY, -2),
        (HAPPY, 2),
        (UNHAPPY, -2),
    ] {
        worth.extend(words.iter().map(|&word| (word, value)));
    }
    for (verbs, value) in [(LIKE, 2), (HATE, -2)] {
        worth.extend(verbs.iter().flat_map(|&(plain, third)| [(plain, value), (third, value)]));
    }
    worth
});

/// Returns the worth of a word of praise or blame under its modifiers.
pub(super) fn modified(worth: i32, intensified: bool, hedged: bool, negated: bool) -> i32 {
    if negated {
        return -worth.signum();
    }
    let strength = worth.abs() + i32::from(intensified) - i32::from(hedged);
    worth.signum() * strength.max(1)
}
