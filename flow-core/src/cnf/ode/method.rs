//! Explicit Runge–Kutta methods as tables of coefficients.

use serde::{Deserialize, Serialize};

/// An explicit Runge–Kutta method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Order 1, one evaluation a step.
    Euler,
    /// Order 2: the slope in the middle.
    Midpoint,
    /// Order 2: the mean of the slopes at both ends; its embedded Euler step estimates the error.
    Heun,
    /// Order 4: the classical method of Kutta.
    Rk4,
    /// Order 3 with an error estimate (Bogacki & Shampine 1989).
    Bosh3,
    /// Order 5 with an error estimate (Dormand & Prince 1980).
    #[default]
    Dopri5,
    /// Order 5 with an error estimate, smaller errors than Dopri5 (Tsitouras 2011).
    Tsit5,
}

/// The coefficients of a method: `k_i = f(t + c_i h, y + h Σ_j a_ij k_j)`, `y' = y + h Σ b_i k_i`.
#[derive(Debug, Clone, Copy)]
pub struct Tableau {
    /// Times of the stages.
    pub c: &'static [f64],
    /// Row `i` has `i` entries.
    pub a: &'static [&'static [f64]],
    /// Weights of the step.
    pub b: &'static [f64],
    /// Weights of the error estimate: the step less its embedded companion.
    pub error: Option<&'static [f64]>,
    /// Whether the last stage is the first one of the next step.
    pub first_same_as_last: bool,
}

impl Method {
    /// The order of convergence.
    pub fn order(self) -> usize {
        match self {
            Method::Euler => 1,
            Method::Midpoint | Method::Heun => 2,
            Method::Bosh3 => 3,
            Method::Rk4 => 4,
            Method::Dopri5 | Method::Tsit5 => 5,
        }
    }

    /// Whether the method estimates its error, so that steps can adapt.
    pub fn adaptive(self) -> bool {
        self.tableau().error.is_some()
    }

    /// Evaluations of one step, without those that it shares with its neighbours.
    pub fn stages(self) -> usize {
        self.tableau().c.len() - usize::from(self.tableau().first_same_as_last)
    }

    /// The coefficients.
    pub fn tableau(self) -> &'static Tableau {
        match self {
            Method::Euler => &EULER,
            Method::Midpoint => &MIDPOINT,
            Method::Heun => &HEUN,
            Method::Rk4 => &RK4,
            Method::Bosh3 => &BOSH3,
            Method::Dopri5 => &DOPRI5,
            Method::Tsit5 => &TSIT5,
        }
    }
}

static EULER: Tableau = Tableau { c: &[0.0], a: &[&[]], b: &[1.0], error: None, first_same_as_last: false };

static MIDPOINT: Tableau =
    Tableau { c: &[0.0, 0.5], a: &[&[], &[0.5]], b: &[0.0, 1.0], error: None, first_same_as_last: false };

static HEUN: Tableau = Tableau {
    c: &[0.0, 1.0],
    a: &[&[], &[1.0]],
    b: &[0.5, 0.5],
    error: Some(&[-0.5, 0.5]),
    first_same_as_last: false,
};

static RK4: Tableau = Tableau {
    c: &[0.0, 0.5, 0.5, 1.0],
    a: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
    b: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    error: None,
    first_same_as_last: false,
};

static BOSH3: Tableau = Tableau {
    c: &[0.0, 0.5, 0.75, 1.0],
    a: &[&[], &[0.5], &[0.0, 0.75], &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
    b: &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0, 0.0],
    error: Some(&[2.0 / 9.0 - 7.0 / 24.0, 1.0 / 3.0 - 1.0 / 4.0, 4.0 / 9.0 - 1.0 / 3.0, -1.0 / 8.0]),
    first_same_as_last: true,
};

static DOPRI5: Tableau = Tableau {
    c: &[0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0],
    a: &[
        &[],
        &[0.2],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
        &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
        &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
    ],
    b: &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0, 0.0],
    error: Some(&[
        71.0 / 57600.0,
        0.0,
        -71.0 / 16695.0,
        71.0 / 1920.0,
        -17253.0 / 339200.0,
        22.0 / 525.0,
        -1.0 / 40.0,
    ]),
    first_same_as_last: true,
};

static TSIT5: Tableau = Tableau {
    c: &[0.0, 0.161, 0.327, 0.9, 0.980_025_540_904_509_7, 1.0, 1.0],
    a: &[
        &[],
        &[0.161],
        &[-0.008_480_655_492_356_99, 0.335_480_655_492_357],
        &[2.897_153_057_105_494, -6.359_448_489_975_075, 4.362_295_432_869_581],
        &[5.325_864_828_439_257, -11.748_883_564_062_83, 7.495_539_342_889_836_5, -0.092_495_066_361_755_25],
        &[
            5.861_455_442_946_42,
            -12.920_969_317_847_11,
            8.159_367_898_576_159,
            -0.071_584_973_281_401,
            -0.028_269_050_394_068_383,
        ],
        &[
            0.096_460_766_818_065_23,
            0.01,
            0.479_889_650_414_499_6,
            1.379_008_574_103_742,
            -3.290_069_515_436_081,
            2.324_710_524_099_774,
        ],
    ],
    b: &[
        0.096_460_766_818_065_23,
        0.01,
        0.479_889_650_414_499_6,
        1.379_008_574_103_742,
        -3.290_069_515_436_081,
        2.324_710_524_099_774,
        0.0,
    ],
    error: Some(&[
        -0.001_780_011_052_225_777,
        -0.000_816_434_459_656_746_6,
        0.007_880_878_010_261_995,
        -0.144_711_007_173_262_9,
        0.582_357_165_452_555_2,
        -0.458_082_105_929_186_97,
        0.015_151_515_151_515_152,
    ]),
    first_same_as_last: true,
};
