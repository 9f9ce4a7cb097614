//! The workload of `cargo xtask demo`: writes documents, indexes their words, and answers queries.
//!
//! It allocates the ways that programs do: strings built piece by piece, vectors that double, maps
//! that grow and are hashed again, a cache that keeps everything. The work is the same in every
//! run.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

const DOCUMENTS: u32 = 10_000;
const SENTENCES_PER_DOCUMENT: u32 = 8;
const QUERIES: u32 = 50_000;

fn main() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let vocabulary = build_vocabulary(&mut random);
    let mut index = Index::default();
    for number in 0..DOCUMENTS {
        let text = write_document(&vocabulary, &mut random);
        index.add_document(number, &text);
    }
    let mut cache = QueryCache::default();
    let mut found = 0;
    for _ in 0..QUERIES {
        let query = write_query(&vocabulary, &mut random);
        found += cache.answer(&index, &query);
    }
    let report = render_report(&index, found);
    eprint!("{report}");
}

/// A xorshift generator, so that two runs make the same documents.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap_or_default()
    }

    /// Prefers what stands early, as words do in real text.
    fn pick<'a>(&mut self, items: &'a [String]) -> &'a str {
        let limit = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let first = self.below(limit);
        let position = self.below(first + 1);
        &items[position as usize]
    }
}

fn build_vocabulary(random: &mut Random) -> Vec<String> {
    const SYLLABLES: &[&str] = &[
        "ka", "lo", "mi", "ren", "tu", "sha", "vel", "dor", "ni", "pas", "e", "o",
    ];
    let mut words = Vec::new();
    for _ in 0..6_000 {
        let mut word = String::new();
        for _ in 0..2 + random.below(4) {
            word.push_str(SYLLABLES[random.below(12) as usize]);
        }
        words.push(word);
    }
    words
}

fn write_document(vocabulary: &[String], random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..SENTENCES_PER_DOCUMENT {
        text.push_str(&write_sentence(vocabulary, random));
        text.push_str(". ");
    }
    text
}

fn write_sentence(vocabulary: &[String], random: &mut Random) -> String {
    let words: Vec<String> = (0..6 + random.below(8))
        .map(|position| capitalize(random.pick(vocabulary), position == 0))
        .collect();
    words.join(" ")
}

fn capitalize(word: &str, first: bool) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(letter) if first => letter.to_uppercase().chain(letters).collect(),
        _ => word.to_owned(),
    }
}

/// For each word, where it stands.
#[derive(Default)]
struct Index {
    postings: HashMap<String, Vec<Posting>>,
    lengths: Vec<usize>,
}

struct Posting {
    document: u32,
    position: u32,
}

impl Index {
    fn add_document(&mut self, document: u32, text: &str) {
        let words = split_into_words(text);
        self.lengths.push(words.len());
        for (position, word) in (0u32..).zip(words) {
            self.add_word(word, Posting { document, position });
        }
    }

    fn add_word(&mut self, word: String, posting: Posting) {
        self.postings.entry(word).or_default().push(posting);
    }

    /// The documents that hold all words of the query, best first.
    fn search(&self, query: &str) -> Vec<u32> {
        let words = split_into_words(query);
        let scores = self.score_documents(&words);
        rank(scores, words.len())
    }

    fn score_documents(&self, words: &[String]) -> BTreeMap<u32, (usize, u32)> {
        let mut scores: BTreeMap<u32, (usize, u32)> = BTreeMap::new();
        for word in words {
            let mut last = None;
            for posting in self.postings.get(word).into_iter().flatten().take(40) {
                let (hits, score) = scores.entry(posting.document).or_default();
                *hits += usize::from(last != Some(posting.document));
                *score += 100 / (posting.position + 1);
                last = Some(posting.document);
            }
        }
        scores
    }
}

fn split_into_words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn rank(scores: BTreeMap<u32, (usize, u32)>, words: usize) -> Vec<u32> {
    let mut ranked: Vec<(u32, u32)> = scores
        .into_iter()
        .filter(|(_, (hits, _))| *hits >= words)
        .map(|(document, (_, score))| (score, document))
        .collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    ranked.into_iter().map(|(_, document)| document).collect()
}

fn write_query(vocabulary: &[String], random: &mut Random) -> String {
    format!("{} {}", random.pick(vocabulary), random.pick(vocabulary))
}

/// Remembers every answer and forgets none: what a leak looks like.
#[derive(Default)]
struct QueryCache {
    answers: HashMap<String, Vec<u32>>,
}

impl QueryCache {
    fn answer(&mut self, index: &Index, query: &str) -> usize {
        self.answers
            .entry(query.to_owned())
            .or_insert_with(|| index.search(query))
            .len()
    }
}

fn render_report(index: &Index, found: usize) -> String {
    let mut report = String::new();
    let words: usize = index.lengths.iter().sum();
    writeln!(
        report,
        "{DOCUMENTS} documents, {words} words, {} different",
        index.postings.len()
    )
    .unwrap_or_default();
    writeln!(report, "{QUERIES} queries found {found} documents").unwrap_or_default();
    report
}
