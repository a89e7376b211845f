//! The text dump of a model, shared by people and snapshot tests.

use std::fmt;

use super::Model;

impl fmt::Display for Model {
    /// One line per node in order of execution: `%3 = ReLU(%2) : f32[1,8] "name"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model {:?}", self.name)?;
        let order = self.topological_order().map_err(|_| fmt::Error)?;
        for id in order {
            let node = self.node(id);
            write!(f, "  {} = {}(", super::Value::from(id), node.op().kind())?;
            for (i, v) in node.inputs().iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{v}")?;
            }
            f.write_str(")")?;
            let attributes = node.op().attributes_text();
            if !attributes.is_empty() {
                write!(f, " {{{attributes}}}")?;
            }
            f.write_str(" :")?;
            for o in node.outputs() {
                write!(f, " {}{}", o.element_type, o.shape)?;
            }
            writeln!(f, " {:?}", node.name())?;
        }
        for o in self.outputs() {
            writeln!(f, "  return {} as {:?}", o.value, o.name)?;
        }
        for v in self.variables() {
            writeln!(f, "  variable {:?} : {}{}", v.name, v.element_type, v.shape)?;
        }
        Ok(())
    }
}
