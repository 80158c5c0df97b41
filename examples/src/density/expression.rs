//! Log-densities as text: a small language of formulas, evaluated by tensors so that they can be differentiated.
//!
//! There is no crate for it that would do: of those that are kept up, one has another licence than this workspace, and one
//! reads `-x^2` as `(-x)^2`, which makes of the most common density one without an integral.

use anyhow::{Result, bail, ensure};
use candle_core::Tensor;

/// A formula with the names of its variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    root: Node,
    /// In the order in which they appear.
    names: Vec<String>,
}

/// A part of a formula.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Variable(usize),
    Negative(Box<Node>),
    Binary(char, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

/// The functions of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Exp,
    Ln,
    Sqrt,
    Abs,
    Sin,
    Cos,
    Tanh,
    Sigmoid,
    Softplus,
    Min,
    Max,
    LogAddExp,
}

impl Function {
    const ALL: [(&'static str, Function); 13] = [
        ("exp", Function::Exp),
        ("ln", Function::Ln),
        ("log", Function::Ln),
        ("sqrt", Function::Sqrt),
        ("abs", Function::Abs),
        ("sin", Function::Sin),
        ("cos", Function::Cos),
        ("tanh", Function::Tanh),
        ("sigmoid", Function::Sigmoid),
        ("softplus", Function::Softplus),
        ("min", Function::Min),
        ("max", Function::Max),
        ("logaddexp", Function::LogAddExp),
    ];

    fn named(name: &str) -> Option<Self> {
        Function::ALL.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    fn arguments(self) -> usize {
        if matches!(self, Function::Min | Function::Max | Function::LogAddExp) { 2 } else { 1 }
    }
}

impl Expression {
    /// Reads a formula.
    ///
    /// # Errors
    /// Names the place, what is there and what should be.
    pub(super) fn parse(text: &str) -> Result<Self> {
        ensure!(text.len() <= LONGEST, "--expr: is {} characters long, {LONGEST} are read at most", text.len());
        let mut parser = Parser { text, at: 0, names: Vec::new(), depth: 0 };
        let root = parser.sum()?;
        parser.space();
        ensure!(parser.at == text.len(), "{}", parser.expected("an operator, or the end"));
        ensure!(!parser.names.is_empty(), "--expr \"{text}\": names no variable; write -x^2/2, for example");
        Ok(Expression { root, names: parser.names })
    }

    /// The variables, in the order in which they appear.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The values at points `(B, D)`, whose columns are the variables, `(B,)`.
    pub(super) fn evaluate(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.root.value(x)? {
            Value::Tensor(values) => Ok(values),
            Value::Number(number) => x.narrow(1, 0, 1)?.squeeze(1)?.affine(0.0, number),
        }
    }
}

/// What a part comes to: the same for all points, or a number for each.
#[derive(Debug, Clone)]
enum Value {
    Number(f64),
    Tensor(Tensor),
}

impl Node {
    fn value(&self, x: &Tensor) -> candle_core::Result<Value> {
        Ok(match self {
            Node::Number(number) => Value::Number(*number),
            Node::Variable(column) => Value::Tensor(x.narrow(1, *column, 1)?.squeeze(1)?),
            Node::Negative(inner) => match inner.value(x)? {
                Value::Number(number) => Value::Number(-number),
                Value::Tensor(t) => Value::Tensor(t.neg()?),
            },
            Node::Binary(operator, a, b) => binary(*operator, a.value(x)?, b.value(x)?)?,
            Node::Call(function, arguments) => {
                let values = arguments.iter().map(|a| a.value(x)).collect::<candle_core::Result<Vec<_>>>()?;
                call(*function, &values)?
            }
        })
    }
}

fn binary(operator: char, a: Value, b: Value) -> candle_core::Result<Value> {
    use Value::{Number, Tensor};
    Ok(match (operator, a, b) {
        ('+', Number(a), Number(b)) => Number(a + b),
        ('-', Number(a), Number(b)) => Number(a - b),
        ('*', Number(a), Number(b)) => Number(a * b),
        ('/', Number(a), Number(b)) => Number(a / b),
        (_, Number(a), Number(b)) => Number(a.powf(b)),
        ('+', Tensor(a), Number(b)) | ('+', Number(b), Tensor(a)) => Tensor((a + b)?),
        ('*', Tensor(a), Number(b)) | ('*', Number(b), Tensor(a)) => Tensor((a * b)?),
        ('-', Tensor(a), Number(b)) => Tensor((a - b)?),
        ('/', Tensor(a), Number(b)) => Tensor((a / b)?),
        ('-', Number(a), Tensor(b)) => Tensor(b.affine(-1.0, a)?),
        ('/', Number(a), Tensor(b)) => Tensor((b.recip()? * a)?),
        ('+', Tensor(a), Tensor(b)) => Tensor((a + b)?),
        ('-', Tensor(a), Tensor(b)) => Tensor((a - b)?),
        ('*', Tensor(a), Tensor(b)) => Tensor((a * b)?),
        ('/', Tensor(a), Tensor(b)) => Tensor((a / b)?),
        (_, Tensor(a), Number(b)) => Tensor(power(&a, b)?),
        (_, Number(a), Tensor(b)) => Tensor((b * a.ln())?.exp()?),
        (_, Tensor(a), Tensor(b)) => Tensor((a.log()? * b)?.exp()?),
    })
}

/// `tᵖ`, small whole powers by products, which have derivatives everywhere.
fn power(t: &Tensor, p: f64) -> candle_core::Result<Tensor> {
    match p {
        0.0 => t.ones_like(),
        1.0 => Ok(t.clone()),
        2.0 => t.sqr(),
        3.0 => t.sqr()? * t,
        4.0 => t.sqr()?.sqr(),
        _ => t.powf(p),
    }
}

fn call(function: Function, values: &[Value]) -> candle_core::Result<Value> {
    if let Some(numbers) = values.iter().map(|v| if let Value::Number(n) = v { Some(*n) } else { None }).collect() {
        return Ok(Value::Number(of_numbers(function, numbers)));
    }
    // A number beside a tensor becomes one.
    let like = values.iter().find_map(|v| if let Value::Tensor(t) = v { Some(t.clone()) } else { None });
    let tensors = values.iter().map(|v| match (v, &like) {
        (Value::Number(n), Some(like)) => like.affine(0.0, *n).map(|t| t.detach()),
        (Value::Tensor(t), _) => Ok(t.clone()),
        (Value::Number(n), None) => Tensor::new(*n, &candle_core::Device::Cpu),
    });
    let tensors = tensors.collect::<candle_core::Result<Vec<Tensor>>>()?;
    let a = &tensors[0];
    let b = tensors.last().unwrap_or(a);
    Ok(Value::Tensor(match function {
        Function::Exp => a.exp()?,
        Function::Ln => a.log()?,
        Function::Sqrt => a.sqrt()?,
        Function::Abs => a.abs()?,
        Function::Sin => a.sin()?,
        Function::Cos => a.cos()?,
        Function::Tanh => a.tanh()?,
        Function::Sigmoid => (a * 0.5)?.tanh()?.affine(0.5, 0.5)?,
        Function::Softplus => log_add_exp(a, &a.zeros_like()?)?,
        Function::Min => a.minimum(b)?,
        Function::Max => a.maximum(b)?,
        Function::LogAddExp => log_add_exp(a, b)?,
    }))
}

fn log_add_exp(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let most = a.detach().maximum(&b.detach())?;
    ((a - &most)?.exp()? + (b - &most)?.exp()?)?.log()? + most
}

fn of_numbers(function: Function, numbers: Vec<f64>) -> f64 {
    let a = numbers.first().copied().unwrap_or(f64::NAN);
    let b = numbers.last().copied().unwrap_or(f64::NAN);
    match function {
        Function::Exp => a.exp(),
        Function::Ln => a.ln(),
        Function::Sqrt => a.sqrt(),
        Function::Abs => a.abs(),
        Function::Sin => a.sin(),
        Function::Cos => a.cos(),
        Function::Tanh => a.tanh(),
        Function::Sigmoid => 1.0 / (1.0 + (-a).exp()),
        Function::Softplus => a.max(0.0) + (-a.abs()).exp().ln_1p(),
        Function::Min => a.min(b),
        Function::Max => a.max(b),
        Function::LogAddExp => a.max(b) + (-(a - b).abs()).exp().ln_1p(),
    }
}

/// Characters of a formula, at most.
const LONGEST: usize = 4000;
/// Parentheses within parentheses, at most.
const DEEPEST: usize = 100;

/// A reader by precedence: sums, products, signs, powers, and what stands alone.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: Vec<String>,
    depth: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// The next character if it is one of these.
    fn take(&mut self, wanted: &[char]) -> Option<char> {
        self.space();
        let next = self.rest().chars().next().filter(|c| wanted.contains(c))?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn expected(&self, wanted: &str) -> String {
        let found = match self.rest().trim_start().chars().next() {
            None => "the end".to_string(),
            Some(c) => format!("'{c}'"),
        };
        let place = self.text[..self.at].chars().count() + 1;
        format!("--expr \"{}\": expected {wanted} at character {place}, found {found}", self.text)
    }

    fn sum(&mut self) -> Result<Node> {
        self.depth += 1;
        ensure!(self.depth <= DEEPEST, "--expr: more than {DEEPEST} parentheses within each other");
        let mut node = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            node = Node::Binary(operator, Box::new(node), Box::new(self.product()?));
        }
        self.depth -= 1;
        Ok(node)
    }

    fn product(&mut self) -> Result<Node> {
        let mut node = self.signed()?;
        while let Some(operator) = self.take(&['*', '/']) {
            node = Node::Binary(operator, Box::new(node), Box::new(self.signed()?));
        }
        Ok(node)
    }

    /// A sign belongs to the whole power: `-x^2` is `-(x^2)`.
    fn signed(&mut self) -> Result<Node> {
        let mut negative = false;
        while let Some(sign) = self.take(&['-', '+']) {
            negative ^= sign == '-';
        }
        let node = self.power()?;
        Ok(if negative { Node::Negative(Box::new(node)) } else { node })
    }

    /// `a^b^c` is `a^(b^c)`.
    fn power(&mut self) -> Result<Node> {
        let base = self.single()?;
        match self.take(&['^']) {
            None => Ok(base),
            Some(operator) => {
                self.depth += 1;
                ensure!(self.depth <= DEEPEST, "--expr: more than {DEEPEST} powers of each other");
                let exponent = self.signed()?;
                self.depth -= 1;
                Ok(Node::Binary(operator, Box::new(base), Box::new(exponent)))
            }
        }
    }

    fn single(&mut self) -> Result<Node> {
        if self.take(&['(']).is_some() {
            let inner = self.sum()?;
            ensure!(self.take(&[')']).is_some(), "{}", self.expected("')'"));
            return Ok(inner);
        }
        self.space();
        match self.rest().chars().next() {
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() => self.name(),
            _ => bail!("{}", self.expected("a number, a name or '('")),
        }
    }

    fn number(&mut self) -> Result<Node> {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = digits(0);
        if bytes.get(end) == Some(&b'.') {
            end += 1 + digits(end + 1);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(bytes.len()));
            end += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
        let Ok(number) = self.rest()[..end].parse() else { bail!("{}", self.expected("a number")) };
        self.at += end;
        Ok(Node::Number(number))
    }

    fn name(&mut self) -> Result<Node> {
        let end = self.rest().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest().len());
        let name = self.rest()[..end].to_string();
        if let Some(function) = Function::named(&name) {
            self.at += end;
            return self.call(&name, function);
        }
        if name == "pi" || name == "e" {
            self.at += end;
            return Ok(Node::Number(if name == "pi" { std::f64::consts::PI } else { std::f64::consts::E }));
        }
        let after = self.rest()[end..].trim_start();
        if after.starts_with('(') {
            let known: Vec<&str> = Function::ALL.iter().map(|(name, _)| *name).collect();
            bail!("--expr \"{}\": no function '{name}', there are {}", self.text, known.join(", "));
        }
        self.at += end;
        let place = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        Ok(Node::Variable(place))
    }

    fn call(&mut self, name: &str, function: Function) -> Result<Node> {
        ensure!(self.take(&['(']).is_some(), "{}", self.expected(&format!("'(' after {name}")));
        let mut arguments = vec![self.sum()?];
        while self.take(&[',']).is_some() {
            arguments.push(self.sum()?);
        }
        ensure!(self.take(&[')']).is_some(), "{}", self.expected("')' or ','"));
        let (found, wanted) = (arguments.len(), function.arguments());
        ensure!(found == wanted, "--expr \"{}\": {name} takes {wanted} arguments, got {found}", self.text);
        Ok(Node::Call(function, arguments))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn at(text: &str, x: [f64; 2]) -> f64 {
        let expression = Expression::parse(text).unwrap();
        let count = expression.names().len();
        let point = Tensor::from_vec(x[..count].to_vec(), (1, count), &Device::Cpu).unwrap();
        expression.evaluate(&point).unwrap().to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn formulas_mean_what_they_mean_on_paper() {
        let (a, b) = (1.3_f64, -0.4_f64);
        for (text, expected) in [
            ("-x^2", -a * a),
            ("-x^2/2 - y^2/2", -0.5 * (a * a + b * b)),
            ("2^-x", 2.0_f64.powf(-a)),
            ("2^3^x", 2.0_f64.powf(3.0_f64.powf(a))),
            ("x - 2 - 3", a - 5.0),
            ("8/x/2", 4.0 / a),
            ("--x + +y", a + b),
            ("1.5e-1*x - .5*(y - 1)^3", 0.15 * a - 0.5 * (b - 1.0).powi(3)),
            ("exp(-x) + ln(x)*sqrt(x) + abs(y)", (-a).exp() + a.ln() * a.sqrt() + b.abs()),
            ("sin(pi*x) + cos(y) + tanh(y)", (std::f64::consts::PI * a).sin() + b.cos() + b.tanh()),
            ("sigmoid(x) + softplus(y)", 1.0 / (1.0 + (-a).exp()) + b.exp().ln_1p()),
            ("logaddexp(x, y) + min(x, y) - max(2, x) + max(1, 3)", (a.exp() + b.exp()).ln() + b - 2.0 + 3.0),
            ("x^y + e - 2*log(e)*x^0 + y*0", a.powf(b) + std::f64::consts::E - 2.0),
            ("x^2.5 + y^4 + y^2", a.powf(2.5) + b.powi(4) + b * b),
            ("1000 + 0*x - logaddexp(1, 2)", 1000.0 - (1.0_f64.exp() + 2.0_f64.exp()).ln()),
        ] {
            assert!((at(text, [a, b]) - expected).abs() < 1e-12, "{text}: {} {expected}", at(text, [a, b]));
        }
        let names = Expression::parse("-(mu_1 - y)^2 - mu_1^2").unwrap();
        assert_eq!(names.names(), ["mu_1", "y"]);
    }

    #[test]
    fn derivatives_go_through() {
        let x = Var::new(&[[0.7_f64, -1.1]], &Device::Cpu).unwrap();
        let expression = Expression::parse("-x^2/2 + x*sin(y)").unwrap();
        let graph = expression.evaluate(x.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let found = graph.get(&x).unwrap().to_vec2::<f64>().unwrap();
        let expected = [-0.7 + (-1.1_f64).sin(), 0.7 * (-1.1_f64).cos()];
        assert!(found[0].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn what_cannot_be_read_is_shown_with_its_place() {
        let deep = "(".repeat(200) + "x" + &")".repeat(200);
        for (text, says) in [
            ("", "a number, a name or '(' at character 1, found the end"),
            ("x +", "at character 4, found the end"),
            ("(x", "expected ')' at character 3"),
            ("x y", "an operator, or the end at character 3, found 'y'"),
            ("x $ 2", "found '$'"),
            ("erf(x)", "no function 'erf', there are exp, ln"),
            ("exp x", "'(' after exp"),
            ("min(x)", "min takes 2 arguments, got 1"),
            ("2 + 3", "names no variable"),
            ("x * * 2", "found '*'"),
            ("1.2.3*x", "an operator, or the end"),
            (".", "a number"),
            (deep.as_str(), "within each other"),
        ] {
            let error = Expression::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
