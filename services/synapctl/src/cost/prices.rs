//! The table of prices.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use serde::Serialize;

/// The table that is used where none is given.
pub(super) const BUILT_IN: &str = include_str!("prices.csv");

/// US dollars. One GB is 10⁹ bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Prices {
    pub(super) postgres_gb_month: f64,
    pub(super) postgres_egress_gb: f64,
    pub(super) postgres_egress_free_gb: f64,
    pub(super) object_gb_month: f64,
    pub(super) object_class_a_million: f64,
    pub(super) object_class_b_million: f64,
    pub(super) object_egress_gb: f64,
}

impl Prices {
    /// Those of a file; without one, those of [`BUILT_IN`].
    pub(super) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else { return Self::parse(BUILT_IN) };
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| shown.to_string())?;
        Self::parse(&text).with_context(|| shown.to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut prices = Self::default();
        let mut missing: Vec<_> = prices.fields().map(|(name, _)| name).to_vec();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, number) =
                line.split_once(',').with_context(|| format!("no comma: {line}"))?;
            let price: f64 = number.trim().parse().with_context(|| line.to_owned())?;
            if !price.is_finite() || price < 0.0 {
                bail!("{line}: a price is not below zero");
            }
            let name = name.trim();
            let mut fields = prices.fields();
            let field = fields.iter_mut().find(|(known, _)| *known == name);
            let (_, field) = field.with_context(|| format!("there is no price {name}"))?;
            **field = price;
            missing.retain(|one| *one != name);
        }
        if !missing.is_empty() {
            bail!(
                "no price for {}; `synapctl cost --print-prices` prints a whole table",
                missing.join(", ")
            );
        }
        Ok(prices)
    }

    fn fields(&mut self) -> [(&'static str, &mut f64); 7] {
        [
            ("postgres_gb_month", &mut self.postgres_gb_month),
            ("postgres_egress_gb", &mut self.postgres_egress_gb),
            ("postgres_egress_free_gb", &mut self.postgres_egress_free_gb),
            ("object_gb_month", &mut self.object_gb_month),
            ("object_class_a_million", &mut self.object_class_a_million),
            ("object_class_b_million", &mut self.object_class_b_million),
            ("object_egress_gb", &mut self.object_egress_gb),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_whole_and_has_nothing_else() {
        let ten_tb = Prices::parse(BUILT_IN).unwrap().postgres_gb_month * 10_000.0;
        assert!((ten_tb - 2_300.0).abs() < 1e-6);
        let said = |text: &str| format!("{:#}", Prices::parse(text).unwrap_err());
        assert!(said("# nothing").contains("no price for postgres_gb_month, postgres_egress_gb"));
        assert!(said("gold,1").contains("no price gold"));
        assert!(said("object_gb_month,-1").contains("not below zero"));
        assert!(said("object_gb_month").contains("no comma"));
    }
}
