//! The part of the rewriting that deals with statements: what stands in `{% … %}`.

use minijinja::machinery::ast::{Expr, Stmt};

use super::rewrite::{ROOTS, Rewriter};
use super::syntax::Fault;

impl<'a> Rewriter<'a> {
    pub(super) fn stmts(&mut self, stmts: &[Stmt<'a>]) {
        for stmt in stmts {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt<'a>) {
        match stmt {
            Stmt::Template(template) => self.stmts(&template.children),
            Stmt::EmitExpr(emit) => {
                self.put("${ ");
                self.expr(&emit.expr);
                self.put(" }");
            }
            Stmt::EmitRaw(raw) => {
                self.put("${ ");
                self.text(raw.raw);
                self.put(" }");
            }
            Stmt::ForLoop(_) => self.for_loop(stmt),
            Stmt::IfCond(cond) => {
                self.put("{% if ");
                self.expr(&cond.expr);
                self.put(" %}");
                self.stmts(&cond.true_body);
                self.put("{% else %}");
                self.stmts(&cond.false_body);
                self.put("{% endif %}");
            }
            Stmt::WithBlock(with) => {
                self.locals.push(Vec::new());
                self.put("{% with ");
                for (n, (target, value)) in with.assignments.iter().enumerate() {
                    self.put(if n > 0 { ", (" } else { "(" });
                    self.target(target);
                    self.put(") = ");
                    self.expr(value);
                }
                self.put(" %}");
                self.stmts(&with.body);
                self.put("{% endwith %}");
                self.locals.pop();
            }
            Stmt::Set(set) => {
                self.put("{% set ");
                let start = self.out.len();
                self.expr(&set.expr);
                let value = self.out.split_off(start);
                self.target(&set.target);
                self.put(" = ");
                self.put(&value);
                self.put(" %}");
            }
            Stmt::SetBlock(set) => {
                self.put("{% set ");
                self.target(&set.target);
                if let Some(filter) = &set.filter {
                    self.put(" | ");
                    self.filter_chain(filter);
                }
                self.put(" %}");
                self.stmts(&set.body);
                self.put("{% endset %}");
            }
            Stmt::FilterBlock(block) => {
                self.put("{% filter ");
                self.filter_chain(&block.filter);
                self.put(" %}");
                self.stmts(&block.body);
                self.put("{% endfilter %}");
            }
            Stmt::Continue(_) => self.put("{% continue %}"),
            Stmt::Break(_) => self.put("{% break %}"),
            Stmt::AutoEscape(tag) => self.refuse("autoescape", tag.span().start_offset),
            Stmt::Block(tag) => self.refuse("block", tag.span().start_offset),
            Stmt::Import(tag) => self.refuse("import", tag.span().start_offset),
            Stmt::FromImport(tag) => self.refuse("from", tag.span().start_offset),
            Stmt::Extends(tag) => self.refuse("extends", tag.span().start_offset),
            Stmt::Include(tag) => self.refuse("include", tag.span().start_offset),
            Stmt::Macro(tag) => self.refuse("macro", tag.span().start_offset),
            Stmt::CallBlock(tag) => self.refuse("call", tag.span().start_offset),
            Stmt::Do(tag) => self.refuse("do", tag.span().start_offset),
        }
    }

    fn refuse(&mut self, tag: &str, at: u32) {
        self.faults.push(Fault::at(
            at as usize,
            format!("`{tag}` cannot be used here: there are for, if, set, with, filter and raw"),
        ));
    }

    fn for_loop(&mut self, stmt: &Stmt<'a>) {
        let Stmt::ForLoop(for_loop) = stmt else { return };
        if for_loop.recursive {
            return self.refuse("recursive", for_loop.span().start_offset);
        }
        self.put("{% for ");
        let start = self.out.len();
        self.expr(&for_loop.iter);
        let iter = self.out.split_off(start);
        self.locals.push(vec!["loop"]);
        self.target(&for_loop.target);
        self.put(" in ");
        self.put(&iter);
        if let Some(filter) = &for_loop.filter_expr {
            self.put(" if ");
            self.expr(filter);
        }
        self.put(" %}");
        self.stmts(&for_loop.body);
        self.locals.pop();
        if !for_loop.else_body.is_empty() {
            self.put("{% else %}");
            self.stmts(&for_loop.else_body);
        }
        self.put("{% endfor %}");
    }

    /// Writes what is assigned to, and makes its names known.
    fn target(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(var) => {
                if ROOTS.contains(&var.id) || var.id.starts_with('_') {
                    self.fault(target, format!("{:?} cannot be assigned to", var.id));
                }
                self.put(var.id);
                if let Some(frame) = self.locals.last_mut() {
                    frame.push(var.id);
                }
            }
            // `{% set ns.count = … %}` on a namespace().
            Expr::GetAttr(attr) => match &attr.expr {
                Expr::Var(var) if self.is_local(var.id) => {
                    self.put(var.id);
                    self.put(".");
                    self.put(attr.name);
                }
                _ => self.fault(target, "only an attribute of a namespace() can be assigned to"),
            },
            Expr::List(list) => {
                for (n, entry) in list.items.iter().enumerate() {
                    self.put(if n > 0 { ", " } else { "" });
                    match entry {
                        Expr::List(_) => {
                            self.put("(");
                            self.target(entry);
                            self.put(")");
                        }
                        _ => self.target(entry),
                    }
                }
                if list.items.len() == 1 {
                    self.put(",");
                }
            }
            _ => self.fault(target, "cannot be assigned to"),
        }
    }
}
