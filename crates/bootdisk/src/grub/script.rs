//! The text of a GRUB script, taken apart.

use std::rc::Rc;

/// Deepest nesting of blocks: grub-mkconfig's are five deep.
const MAX_DEPTH: u32 = 32;
/// Most statements of a script.
const MAX_STATEMENTS: u32 = 50_000;
/// Most words of a command.
const MAX_WORDS: usize = 1024;

/// Statements that are run one after the other.
pub(super) type Block = Rc<[Statement]>;

#[derive(Debug)]
pub(super) enum Statement {
    Command(Vec<Word>),
    If {
        /// Conditions, each with what is run if it holds and none before did.
        arms: Vec<(Block, Block)>,
        otherwise: Block,
    },
    Function {
        name: String,
        body: Block,
    },
    Entry {
        submenu: bool,
        words: Vec<Word>,
        body: Block,
    },
}

#[derive(Debug, Default)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
    /// A part of it is in quotes: it is a word even if it is empty.
    pub(super) quoted: bool,
}

#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    /// The value of a variable; in quotes it is not split.
    Variable {
        name: String,
        quoted: bool,
    },
}

/// Takes `text` apart.
///
/// # Errors
/// What cannot be understood, with its line.
pub(super) fn parse(text: &str) -> Result<Block, String> {
    let mut parser = Parser { text: text.as_bytes(), at: 0, ahead: None, statements: 0 };
    match parser.block(0)? {
        (block, Ender::End) => Ok(block),
        (_, ender) => Err(parser.wrong(&format!("{ender:?} comes unexpectedly"))),
    }
}

enum Token {
    Word(Word),
    Separator,
    Open,
    Close,
    End,
}

/// What a block ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ender {
    Then,
    Elif,
    Else,
    Fi,
    Do,
    Done,
    Brace,
    End,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    ahead: Option<Token>,
    statements: u32,
}

impl Parser<'_> {
    fn wrong(&self, what: &str) -> String {
        let line = 1 + self.text[..self.at].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: {what}")
    }

    /// Statements up to what ends their block.
    fn block(&mut self, depth: u32) -> Result<(Block, Ender), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("blocks are nested too deeply"));
        }
        let mut statements = Vec::new();
        loop {
            let word = match self.token()? {
                Token::Separator => continue,
                Token::End => return Ok((statements.into(), Ender::End)),
                Token::Close => return Ok((statements.into(), Ender::Brace)),
                Token::Open => return Err(self.wrong("a brace comes unexpectedly")),
                Token::Word(word) => word,
            };
            self.statements += 1;
            if self.statements > MAX_STATEMENTS {
                return Err(self.wrong("there are too many commands"));
            }
            let statement = match word.keyword() {
                Some("then") => return Ok((statements.into(), Ender::Then)),
                Some("elif") => return Ok((statements.into(), Ender::Elif)),
                Some("else") => return Ok((statements.into(), Ender::Else)),
                Some("fi") => return Ok((statements.into(), Ender::Fi)),
                Some("do") => return Ok((statements.into(), Ender::Do)),
                Some("done") => return Ok((statements.into(), Ender::Done)),
                Some("if") => self.conditional(depth)?,
                Some("function") => {
                    let words = self.words()?;
                    let name = words.first().and_then(Word::keyword).unwrap_or_default().to_owned();
                    Statement::Function { name, body: self.braces(depth)? }
                }
                Some(word @ ("menuentry" | "submenu")) => {
                    let submenu = word == "submenu";
                    let words = self.words()?;
                    Statement::Entry { submenu, words, body: self.braces(depth)? }
                }
                Some("for" | "while" | "until") => {
                    self.skip_loop(depth)?;
                    continue;
                }
                _ => {
                    let mut words = vec![word];
                    words.extend(self.words()?);
                    Statement::Command(words)
                }
            };
            statements.push(statement);
        }
    }

    /// What follows `if`.
    fn conditional(&mut self, depth: u32) -> Result<Statement, String> {
        let mut arms = Vec::new();
        loop {
            let condition = self.until(depth, Ender::Then)?;
            let (body, ender) = self.block(depth + 1)?;
            arms.push((condition, body));
            match ender {
                Ender::Elif => {}
                Ender::Else => return Ok(Statement::If { arms, otherwise: self.until(depth, Ender::Fi)? }),
                Ender::Fi => return Ok(Statement::If { arms, otherwise: Rc::new([]) }),
                _ => return Err(self.wrong("an if has no fi")),
            }
        }
    }

    fn until(&mut self, depth: u32, wanted: Ender) -> Result<Block, String> {
        match self.block(depth + 1)? {
            (block, ender) if ender == wanted => Ok(block),
            _ => Err(self.wrong(&format!("{wanted:?} is missing"))),
        }
    }

    /// Loops choose backgrounds and the like; none of grub-mkconfig's makes an entry. They are not
    /// run.
    fn skip_loop(&mut self, depth: u32) -> Result<(), String> {
        self.until(depth, Ender::Do)?;
        self.until(depth, Ender::Done)?;
        Ok(())
    }

    /// A block in braces.
    fn braces(&mut self, depth: u32) -> Result<Block, String> {
        loop {
            match self.token()? {
                Token::Separator => {}
                Token::Open => return self.until(depth, Ender::Brace),
                _ => return Err(self.wrong("an opening brace is missing")),
            }
        }
    }

    /// Words up to a separator or a brace, which are left.
    fn words(&mut self) -> Result<Vec<Word>, String> {
        let mut words = Vec::new();
        loop {
            match self.token()? {
                Token::Word(word) if words.len() < MAX_WORDS => words.push(word),
                Token::Word(_) => return Err(self.wrong("a command has too many words")),
                other => {
                    self.ahead = Some(other);
                    return Ok(words);
                }
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn token(&mut self) -> Result<Token, String> {
        if let Some(token) = self.ahead.take() {
            return Ok(token);
        }
        loop {
            let Some(byte) = self.peek() else { return Ok(Token::End) };
            let token = match byte {
                b' ' | b'\t' | b'\r' => {
                    self.at += 1;
                    continue;
                }
                b'\\' if self.text.get(self.at + 1) == Some(&b'\n') => {
                    self.at += 2;
                    continue;
                }
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    continue;
                }
                b'\n' | b';' | b'&' | b'|' => Token::Separator,
                b'{' => Token::Open,
                b'}' => Token::Close,
                _ => return self.word().map(Token::Word),
            };
            self.at += 1;
            return Ok(token);
        }
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::default();
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'{' | b'}' => break,
                b'\'' => {
                    let rest = &self.text[self.at + 1..];
                    let end = rest.iter().position(|byte| *byte == b'\'');
                    let end = end.ok_or_else(|| self.wrong("a quote is not closed"))?;
                    text.extend_from_slice(&rest[..end]);
                    word.quoted = true;
                    self.at += end + 2;
                }
                b'"' => {
                    self.at += 1;
                    word.quoted = true;
                    self.double_quotes(&mut word, &mut text)?;
                }
                b'\\' => {
                    // A newline behind it is no part of the word, and does not end it.
                    text.extend(self.text.get(self.at + 1).filter(|byte| **byte != b'\n'));
                    self.at = (self.at + 2).min(self.text.len());
                }
                b'$' => self.variable(&mut word, &mut text, false),
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        word.add(&mut text);
        Ok(word)
    }

    /// The rest of what is in double quotes.
    fn double_quotes(&mut self, word: &mut Word, text: &mut Vec<u8>) -> Result<(), String> {
        loop {
            match self.peek() {
                None => return Err(self.wrong("a quote is not closed")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    match self.text.get(self.at + 1) {
                        Some(b'\n') => {}
                        Some(byte @ (b'"' | b'\\' | b'$')) => text.push(*byte),
                        other => {
                            text.push(b'\\');
                            text.extend(other);
                        }
                    }
                    self.at = (self.at + 2).min(self.text.len());
                }
                Some(b'$') => self.variable(word, text, true),
                Some(byte) => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// A dollar sign and what it stands for: itself where no name follows.
    fn variable(&mut self, word: &mut Word, text: &mut Vec<u8>, quoted: bool) {
        let rest = &self.text[self.at + 1..];
        let letters = |rest: &[u8]| {
            rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
        };
        let (name, length) = match rest.first() {
            Some(b'{') => match rest.iter().position(|byte| *byte == b'}') {
                Some(end) => (&rest[1..end], end + 1),
                None => (&rest[..0], 0),
            },
            Some(byte) if b"?#@*".contains(byte) || byte.is_ascii_digit() => (&rest[..1], 1),
            _ => (&rest[..letters(rest)], letters(rest)),
        };
        self.at += 1 + length;
        if name.is_empty() {
            text.push(b'$');
            return;
        }
        word.add(text);
        let name = String::from_utf8_lossy(name).into_owned();
        word.pieces.push(Piece::Variable { name, quoted });
    }
}

impl Word {
    /// Adds `text`, which is emptied.
    fn add(&mut self, text: &mut Vec<u8>) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(String::from_utf8_lossy(text).into_owned()));
            text.clear();
        }
    }

    /// Its text, if nothing of it is quoted or a variable.
    fn keyword(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }
}
