//! From what a person wrote to what is evaluated.
//!
//! minijinja cannot be told three things that we promise, so the syntax tree is written out again
//! as source that keeps them:
//!
//! - *strict*: a name that has no value is an error wherever it is used, except under `is defined`
//!   and `default()`. Every look-up becomes `_need(look-up, "its text")`.
//! - *bounded*: whatever can be large passes through `_need` or `_sized`; `~` becomes `_concat`.
//! - *known*: filters, tests, functions and names are looked up here, before the first run.
//!
//! The walk also notes which names are read ([`Use`]), for the checks of a pipeline.

use std::fmt::Write as _;

use minijinja::Value;
use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};

use super::engine;
use super::syntax::Fault;
use crate::problem::nearest;

/// A name that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The outermost name: `steps` in `steps.mail.body`.
    pub root: String,
    /// The next one, where it is written out: `mail`. `None`: the whole, or a computed key.
    pub key: Option<String>,
    /// Whether the expression goes on without a value: `is defined`, `default()`.
    pub guarded: bool,
    /// Byte offset in the source.
    pub at: usize,
}

/// The names that have a value in some expression.
pub const ROOTS: &[&str] =
    &["params", "steps", "event", "now", "run", "last", "secrets", "error", "item", "index"];

/// How many operands of one chain of `+` are computed before the size is looked at.
const CHAIN_MAX: usize = 16;

pub(super) struct Rewriter<'a> {
    pub(super) out: String,
    pub(super) uses: Vec<Use>,
    pub(super) faults: Vec<Fault>,
    /// Names made by `{% for %}`, `{% set %}` and `{% with %}`, innermost last.
    pub(super) locals: Vec<Vec<&'a str>>,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new() -> Self {
        Self { out: String::new(), uses: Vec::new(), faults: Vec::new(), locals: vec![Vec::new()] }
    }

    pub(super) fn fault(&mut self, expr: &Expr<'a>, message: impl Into<String>) {
        self.faults.push(Fault::at(expr.span().start_offset as usize, message));
    }

    pub(super) fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    pub(super) fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|frame| frame.contains(&name))
    }

    /// Writes `expr`; its value is never undefined when it is evaluated.
    pub(super) fn expr(&mut self, expr: &Expr<'a>) {
        match expr {
            Expr::Var(var) if matches!(var.id, "null" | "Null") && !self.is_local(var.id) => {
                self.put("none");
            }
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => {
                let text = describe(expr);
                self.put("_need(");
                self.lookup(expr, false);
                self.put(", ");
                self.text(&text);
                self.put(")");
            }
            Expr::Const(value) => self.constant(expr, &value.value),
            Expr::UnaryOp(unary) => {
                self.put(match unary.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expr(&unary.expr);
                self.put(")");
            }
            Expr::BinOp(_) => self.binary(expr),
            Expr::Compare(compare) => {
                self.put("(");
                self.expr(&compare.expr);
                for step in &compare.ops {
                    self.put(comparison(step.op));
                    self.expr(&step.expr);
                }
                self.put(")");
            }
            Expr::IfExpr(choice) => {
                let Some(otherwise) = &choice.false_expr else {
                    return self.fault(expr, "an `if` inside an expression needs an `else`");
                };
                self.put("(");
                self.expr(&choice.true_expr);
                self.put(" if ");
                self.expr(&choice.test_expr);
                self.put(" else ");
                self.expr(otherwise);
                self.put(")");
            }
            Expr::Filter(_) => self.filter(expr),
            Expr::Test(_) => self.test(expr),
            Expr::Slice(slice) => {
                self.put("(");
                self.expr(&slice.expr);
                self.put(")[");
                self.optional(slice.start.as_ref());
                self.put(":");
                self.optional(slice.stop.as_ref());
                if slice.step.is_some() {
                    self.put(":");
                    self.optional(slice.step.as_ref());
                }
                self.put("]");
            }
            Expr::Call(_) => self.call(expr),
            Expr::List(list) => self.list(&list.items),
            Expr::Tuple(tuple) => self.list(&tuple.items),
            Expr::Map(map) => {
                self.put("_sized({ ");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.expr(key);
                    self.put(": ");
                    self.expr(value);
                    self.put(", ");
                }
                self.put("})");
            }
        }
    }

    fn optional(&mut self, expr: Option<&Expr<'a>>) {
        if let Some(expr) = expr {
            self.expr(expr);
        }
    }

    fn list(&mut self, entries: &[Expr<'a>]) {
        self.put("_sized([");
        for entry in entries {
            self.expr(entry);
            self.put(", ");
        }
        self.put("])");
    }

    /// Writes a look-up as it is, its value may be undefined; notes the names.
    fn lookup(&mut self, expr: &Expr<'a>, guarded: bool) {
        self.note(expr, guarded);
        self.lookup_inner(expr);
    }

    fn lookup_inner(&mut self, expr: &Expr<'a>) {
        match expr {
            Expr::Var(var) => self.put(var.id),
            Expr::GetAttr(attr) => {
                self.lookup_inner(&attr.expr);
                self.put("[");
                self.text(attr.name);
                self.put("]");
            }
            Expr::GetItem(item) => {
                self.lookup_inner(&item.expr);
                self.put("[");
                self.expr(&item.subscript_expr);
                self.put("]");
            }
            other => {
                self.put("(");
                self.expr(other);
                self.put(")");
            }
        }
    }

    fn note(&mut self, expr: &Expr<'a>, guarded: bool) {
        let mut key = None;
        let mut inner = expr;
        let var = loop {
            match inner {
                Expr::Var(var) => break var,
                Expr::GetAttr(attr) => {
                    key = Some(attr.name.to_owned());
                    inner = &attr.expr;
                }
                Expr::GetItem(item) => {
                    key = item
                        .subscript_expr
                        .as_const()
                        .and_then(|key| key.as_str().map(str::to_owned));
                    inner = &item.expr;
                }
                _ => return,
            }
        };
        if self.is_local(var.id) {
            return;
        }
        if ROOTS.contains(&var.id) {
            let at = var.span().start_offset as usize;
            self.uses.push(Use { root: var.id.to_owned(), key, guarded, at });
        } else if engine::is_function(var.id) {
            self.fault(expr, format!("{} is a function: call it as {0}(…)", var.id));
        } else {
            let known = ROOTS.iter().copied().chain(self.locals.iter().flatten().copied());
            let message = match nearest(var.id, known) {
                Some(near) => format!("unknown name {:?}. Did you mean {near:?}?", var.id),
                None => format!(
                    "unknown name {:?}. Names are {}; a text stands in quotes.",
                    var.id,
                    ROOTS[..ROOTS.len() - 3].join(", ")
                ),
            };
            self.fault(expr, message);
        }
    }

    fn binary(&mut self, expr: &Expr<'a>) {
        let Expr::BinOp(last) = expr else { return };
        // A chain such as `a ~ b ~ c` leans to the left; written flat it nests no deeper.
        let kind = std::mem::discriminant(&last.op);
        let mut operands = vec![&last.right];
        let mut left = &last.left;
        while let Expr::BinOp(inner) = left
            && std::mem::discriminant(&inner.op) == kind
        {
            operands.push(&inner.right);
            left = &inner.left;
        }
        operands.push(left);
        operands.reverse();
        let (open, between) = match last.op {
            BinOpKind::Concat => ("_concat(", ", "),
            BinOpKind::Add => ("_sum(", " + "),
            BinOpKind::Mul => ("_sized(", " * "),
            BinOpKind::Pow => ("(", " ** "),
            BinOpKind::Sub => ("(", " - "),
            BinOpKind::Div => ("(", " / "),
            BinOpKind::FloorDiv => ("(", " // "),
            BinOpKind::Rem => ("(", " % "),
            BinOpKind::ScAnd => ("(", " and "),
            BinOpKind::ScOr => ("(", " or "),
            BinOpKind::Eq => ("(", " == "),
            BinOpKind::Ne => ("(", " != "),
            BinOpKind::Lt => ("(", " < "),
            BinOpKind::Lte => ("(", " <= "),
            BinOpKind::Gt => ("(", " > "),
            BinOpKind::Gte => ("(", " >= "),
            BinOpKind::In => ("(", " in "),
        };
        let checked = matches!(last.op, BinOpKind::Add | BinOpKind::Mul);
        let extra = if checked { (operands.len() - 1) / CHAIN_MAX } else { 0 };
        for _ in 0..extra {
            self.put(open);
        }
        self.put(open);
        for (n, operand) in operands.iter().enumerate() {
            if n > 0 {
                if checked && n % CHAIN_MAX == 0 {
                    self.put(")");
                }
                self.put(between);
            }
            self.expr(operand);
        }
        self.put(")");
    }

    fn filter(&mut self, expr: &Expr<'a>) {
        let Expr::Filter(filter) = expr else { return };
        // `first`, `last` and the like give nothing for an empty list.
        let may_be_absent = matches!(filter.name, "first" | "last" | "attr" | "min" | "max");
        self.put(if may_be_absent { "_need(" } else { "_sized(" });
        self.filter_chain(expr);
        if may_be_absent {
            self.put(", ");
            let text = describe(expr);
            self.text(&text);
        }
        self.put(")");
    }

    /// Writes `value | filter(…)`; for a filter without a value (as in `{% filter upper %}`) only
    /// `filter(…)`.
    pub(super) fn filter_chain(&mut self, expr: &Expr<'a>) {
        let Expr::Filter(filter) = expr else { return };
        if !engine::is_filter(filter.name) {
            let message = unknown("filter", filter.name, engine::filters());
            self.fault(expr, message);
        }
        match &filter.expr {
            None => {}
            // Behind the tag of a block the chain has no value to begin with: nothing to wrap.
            Some(inner @ Expr::Filter(_)) if has_no_value(inner) => {
                self.filter_chain(inner);
                self.put(" | ");
            }
            Some(inner) => {
                self.put("(");
                self.tolerant(inner, is_default(filter.name));
                self.put(") | ");
            }
        }
        self.put(filter.name);
        self.name_argument(expr, filter.name, &filter.args);
        self.first_argument(expr, filter.name, &filter.args);
        self.args(&filter.args);
    }

    /// Writes `inner`, as it is when it may be undefined.
    fn tolerant(&mut self, inner: &Expr<'a>, may_be_absent: bool) {
        match inner {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) if may_be_absent => {
                self.lookup(inner, true);
            }
            Expr::Filter(_) if may_be_absent => self.filter_chain(inner),
            Expr::Filter(_) => self.filter(inner),
            _ => self.expr(inner),
        }
    }

    /// Checks a first argument that is a constant text: a duration, a zone, a pattern.
    fn first_argument(&mut self, expr: &Expr<'a>, name: &str, args: &[CallArg<'a>]) {
        if let Some(CallArg::Pos(Expr::Const(first))) = args.first()
            && let Some(text) = first.value.as_str()
            && let Some(message) = engine::argument_fault(name, text)
        {
            self.fault(expr, message);
        }
    }

    /// Checks the name in `map('upper')`, `select('odd')`, `selectattr('n', 'gt', 1)`.
    fn name_argument(&mut self, expr: &Expr<'a>, filter: &str, args: &[CallArg<'a>]) {
        let position = match filter {
            "map" | "select" | "reject" => 0,
            "selectattr" | "rejectattr" => 1,
            _ => return,
        };
        let Some(CallArg::Pos(Expr::Const(name))) = args.get(position) else { return };
        let Some(name) = name.value.as_str() else { return };
        if filter == "map" && !engine::is_filter(name) {
            let message = unknown("filter", name, engine::filters());
            self.fault(expr, message);
        }
        if filter != "map" && !engine::is_test(name) {
            let message = unknown("test", name, engine::tests());
            self.fault(expr, message);
        }
    }

    fn test(&mut self, expr: &Expr<'a>) {
        let Expr::Test(test) = expr else { return };
        if !engine::is_test(test.name) {
            let message = unknown("test", test.name, engine::tests());
            self.fault(expr, message);
        }
        self.first_argument(expr, test.name, &test.args);
        self.put("(");
        self.tolerant(&test.expr, matches!(test.name, "defined" | "undefined"));
        self.put(" is ");
        self.put(test.name);
        self.args(&test.args);
        self.put(")");
    }

    fn call(&mut self, expr: &Expr<'a>) {
        let Expr::Call(call) = expr else { return };
        match &call.expr {
            Expr::Var(var) if engine::is_function(var.id) => self.put(var.id),
            Expr::Var(var) if engine::is_filter(var.id) => {
                return self.fault(expr, format!("{} is a filter: write `value | {0}`", var.id));
            }
            Expr::Var(var) => {
                let message = unknown("function", var.id, engine::functions());
                return self.fault(expr, message);
            }
            // The helper of `{% for %}`: `loop.cycle('a', 'b')`.
            Expr::GetAttr(attr)
                if matches!(&attr.expr, Expr::Var(var) if var.id == "loop")
                    && self.is_local("loop")
                    && matches!(attr.name, "cycle" | "changed") =>
            {
                self.put("loop.");
                self.put(attr.name);
            }
            Expr::GetAttr(attr) => {
                let hint = if engine::is_filter(attr.name) {
                    format!(" Use the filter: `value | {}`.", attr.name)
                } else {
                    String::new()
                };
                return self.fault(expr, format!("values have no method {:?}.{hint}", attr.name));
            }
            _ => return self.fault(expr, "only functions can be called"),
        }
        self.args(&call.args);
        if call.args.is_empty() {
            self.put("()");
        }
    }

    fn args(&mut self, args: &[CallArg<'a>]) {
        if args.is_empty() {
            return;
        }
        self.put("(");
        for arg in args {
            match arg {
                CallArg::Pos(value) => self.expr(value),
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    self.expr(value);
                }
                CallArg::PosSplat(value) => {
                    self.put("*");
                    self.expr(value);
                }
                CallArg::KwargSplat(value) => {
                    self.put("**");
                    self.expr(value);
                }
            }
            self.put(", ");
        }
        self.put(")");
    }

    fn constant(&mut self, expr: &Expr<'a>, value: &Value) {
        if let Some(text) = value.as_str() {
            self.text(text);
        } else if value.is_number() {
            // An integer beyond 64 bits has no place in JSON.
            if value.is_integer()
                && value.as_i64().is_none()
                && u64::try_from(value.clone()).is_err()
            {
                return self.fault(expr, "the number is too large");
            }
            let _ = write!(self.out, "{value}");
        } else if value.is_none() {
            self.put("none");
        } else {
            self.put(if value.is_true() { "true" } else { "false" });
        }
    }

    /// Writes a quoted text.
    pub(super) fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                self.out.push('\\');
            }
            self.out.push(c);
        }
        self.out.push('"');
    }
}

/// Whether `expr` is a chain of filters that begins with a filter, as in `{% filter a | b %}`.
fn has_no_value(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Filter(filter) => filter.expr.as_ref().is_none_or(has_no_value),
        _ => false,
    }
}

fn is_default(filter: &str) -> bool {
    matches!(filter, "default" | "d")
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown {what} {name:?}. Did you mean {near:?}?"),
        None => format!("unknown {what} {name:?}"),
    }
}

/// A look-up as a person would write it, for messages.
fn describe(expr: &Expr<'_>) -> String {
    match expr {
        Expr::Var(var) => var.id.to_owned(),
        Expr::GetAttr(attr) => format!("{}.{}", describe(&attr.expr), attr.name),
        Expr::GetItem(item) => match item.subscript_expr.as_const() {
            Some(key) => format!("{}[{key:?}]", describe(&item.expr)),
            None => format!("{}[…]", describe(&item.expr)),
        },
        Expr::Filter(filter) => match &filter.expr {
            Some(inner) => format!("{} | {}", describe(inner), filter.name),
            None => filter.name.to_owned(),
        },
        _ => "(…)".to_owned(),
    }
}
