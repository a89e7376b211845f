//! Texts.

use super::*;

fn texts(shape: &[usize], values: &[&str]) -> Tensor {
    Tensor::from_strings(shape, values.iter().map(|s| (*s).to_owned()).collect()).expect("fits")
}

fn run(op: &dyn crate::op::Op, inputs: &[Tensor]) -> Vec<Tensor> {
    op.evaluate(inputs).expect("valid")
}

#[test]
fn texts_are_joined_under_broadcasting() {
    let got = run(&StringConcat {}, &[texts(&[2, 1], &["a", "ß"]), texts(&[2], &["x", ""])]);
    assert_eq!(got[0], texts(&[2, 2], &["ax", "a", "ßx", "ß"]));
    assert_eq!(run(&StringConcat {}, &[texts(&[0], &[]), texts(&[1], &["x"])])[0], texts(&[0], &[]));
}

#[test]
fn texts_are_split_as_python_does() {
    let split = |delimiter: &str, maxsplit, text: &str| -> Vec<String> {
        let op = StringSplit { delimiter: delimiter.to_owned(), maxsplit };
        run(&op, &[texts(&[1], &[text])])[0].as_strings().expect("texts").to_vec()
    };
    for (delimiter, maxsplit, text, expected) in [
        ("", -1, "  a  b c ", vec!["a", "b", "c"]),
        ("", 1, "  a  b c ", vec!["a", "b c"]),
        ("", 0, " a b ", vec!["a b"]),
        ("", -1, "  ", vec![]),
        (",", -1, "a,,b", vec!["a", "", "b"]),
        (",", 1, "a,,b", vec!["a", ",b"]),
        (",", 0, "a,b", vec!["a,b"]),
        (",", -1, "", vec![""]),
        ("--", -1, "a---b", vec!["a", "-b"]),
    ] {
        assert_eq!(split(delimiter, maxsplit, text), expected, "{text:?} at {delimiter:?}");
    }
    let got = run(&StringSplit::default(), &[texts(&[2, 1], &["a b", "c"])]);
    assert_eq!(got[0], texts(&[2, 1, 2], &["a", "b", "c", ""]));
    assert_eq!(got[1].to_i64_vec().expect("counts"), [2, 1]);
    let empty = run(&StringSplit::default(), &[texts(&[3, 0], &[])]);
    assert_eq!(empty[0].shape().to_vec(), [3, 0, 0]);
}

#[test]
fn stop_words_are_left_out() {
    let stopwords = || vec!["Monday".to_owned()];
    let input = texts(&[1, 3], &["monday", "Monday", "Tuesday"]);
    for (case_change_action, is_case_sensitive, expected) in [
        (CaseChange::None, true, vec!["monday", "Tuesday"]),
        (CaseChange::Lower, true, vec!["monday", "tuesday"]),
        (CaseChange::Upper, false, vec!["TUESDAY"]),
    ] {
        let op = StringNormalizer { case_change_action, is_case_sensitive, stopwords: stopwords() };
        let got = run(&op, std::slice::from_ref(&input));
        assert_eq!(got[0], texts(&[1, expected.len()], &expected));
    }
    let op = StringNormalizer { stopwords: stopwords(), ..StringNormalizer::default() };
    assert_eq!(run(&op, &[texts(&[2], &["monday", "MONDAY"])])[0], texts(&[1], &[""]));
    assert!(op.evaluate(&[texts(&[2, 1], &["a", "b"])]).is_err());
}

#[test]
fn patterns_match_whole_texts_in_re2_syntax() {
    for (pattern, text, expected) in [
        ("a|ab", "ab", true),
        ("a|b", "ab", false),
        ("", "", true),
        (r"\d+", "12", true),
        (r"\d", "٣", false),
        (r"\w\W", "aé", true),
        (r"[\w-]+@[a-z.]+", "a-b@c.de", true),
        (r"[]a]+", "a]", true),
        (r"[^]a]", "b", true),
        (r"[a[b]+", "[ab", true),
        (r"[a&&b]+", "&&", true),
        (r"[+--]", ",", true),
        (r"[a-]", "-", true),
        (r"[[:alpha:]]+", "abc", true),
        (r"[[:^alpha:]]", "1", true),
        (r"\Qa.b\E+", "a.bb", true),
        (r"\Qa.b\E", "axb", false),
        (r"\p{^Greek}", "a", true),
        (r"\pN", "7", true),
        (r"\x{e9}", "é", true),
        (r"\101", "A", true),
        ("(?i)abc", "ABC", true),
        (r"a.c", "a\nc", false),
        (r"(?s)a.c", "a\nc", true),
        (r"a\b.c", "a c", true),
        (r"(?P<x>a)b", "ab", true),
        ("é.", "éü", true),
    ] {
        let got = run(&RegexFullMatch::new(pattern.to_owned()), &[texts(&[1], &[text])]);
        assert_eq!(got[0], Tensor::from_bools([1], &[expected]).expect("fits"), "{pattern:?} on {text:?}");
    }
    for pattern in ["(", "a)(b", "[a", r"\", "a**{", "(a{1000}){1000}{1000}"] {
        let op = RegexFullMatch::new(pattern.to_owned());
        assert!(op.evaluate(&[texts(&[1], &["a"])]).is_err(), "{pattern:?}");
    }
}

#[test]
fn ngrams_are_counted_with_skips() {
    let op = |mode, min, max, skip| {
        let mut op = TfIdfVectorizer::default();
        (op.mode, op.min_gram_length, op.max_gram_length, op.max_skip_count) = (mode, min, max, skip);
        op.ngram_counts = vec![0, 4];
        op.ngram_indexes = vec![0, 1, 2, 3, 4, 5, 6];
        op.pool_int64s = vec![2, 3, 5, 4, 5, 6, 7, 8, 6, 7];
        op.weights = vec![2.0; 7];
        op
    };
    let row = Tensor::from_vec([12], vec![1i32, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8]).expect("fits");
    for (op, expected) in [
        (op(Weighting::Tf, 2, 2, 0), [0., 0., 0., 0., 1., 1., 1.]),
        (op(Weighting::Tf, 2, 2, 5), [0., 0., 0., 0., 1., 3., 1.]),
        (op(Weighting::Tf, 1, 2, 5), [0., 3., 1., 0., 1., 3., 1.]),
        (op(Weighting::Idf, 1, 2, 5), [0., 2., 2., 0., 2., 2., 2.]),
        (op(Weighting::TfIdf, 1, 2, 5), [0., 6., 2., 0., 2., 6., 2.]),
    ] {
        assert_eq!(run(&op, std::slice::from_ref(&row))[0].to_f64_vec().expect("f32"), expected);
    }
    let mut words = op(Weighting::Tf, 1, 1, 0);
    words.pool_int64s.clear();
    words.pool_strings = ["a", "b"].map(str::to_owned).to_vec();
    (words.ngram_counts, words.ngram_indexes) = (vec![0], vec![1, 0]);
    let got = run(&words, &[texts(&[2, 3], &["a", "c", "a", "b", "b", "b"])]);
    assert_eq!(got[0].to_f64_vec().expect("f32"), [0., 2., 3., 0.]);
    let mut bad = op(Weighting::Tf, 1, 2, 0);
    bad.ngram_counts = vec![0, 400];
    assert!(bad.evaluate(std::slice::from_ref(&row)).is_err());
    bad = op(Weighting::Tf, 1, 2, 0);
    bad.ngram_indexes = vec![-1];
    assert!(bad.evaluate(&[row]).is_err());
}
