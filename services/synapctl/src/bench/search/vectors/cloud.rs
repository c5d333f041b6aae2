//! Vectors as embeddings of notes lie: users have topics, topics lie in fields, and all of it in far
//! fewer dimensions than the vectors have. The same for every run.

use fastrand::Rng;

/// Users.
pub(super) const SIZES: usize = 50;
const DIMENSIONS: usize = 1536;
/// Directions in which texts really differ.
const LATENT: usize = 96;
const FIELDS: usize = 20;
const TOPICS: usize = 200;
const TOPICS_OF_A_USER: usize = 10;

/// How many vectors each user has: the second half as many as the first, and so on (Zipf's law).
pub(super) fn sizes(total: usize) -> [usize; SIZES] {
    let mut weight = 0.0;
    let weights = [(); SIZES].map(|()| {
        weight += 1.0_f64;
        weight.powf(-1.2)
    });
    let sum: f64 = weights.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "far from every limit"
    )]
    weights.map(|weight| (weight / sum * total as f64).max(20.0) as usize)
}

/// Draws vectors.
pub(super) struct Cloud {
    random: Rng,
    /// From the latent directions to those of a vector.
    projection: Vec<[f32; LATENT]>,
    topics: Vec<[f32; LATENT]>,
}

impl Cloud {
    pub(super) fn new() -> Self {
        let mut random = Rng::with_seed(1);
        let projection = (0..DIMENSIONS).map(|_| normal(&mut random, 0.1)).collect();
        let fields: Vec<[f32; LATENT]> = (0..FIELDS).map(|_| normal(&mut random, 1.0)).collect();
        let topics = (0..TOPICS)
            .map(|topic| sum(&fields[topic % FIELDS], &normal(&mut random, 0.8)))
            .collect();
        Self { random, projection, topics }
    }

    /// Vectors of a user's notes.
    pub(super) fn of(&mut self, user: usize, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.draw(user, 0.9)).collect()
    }

    /// What a user asks: near the user's topics, and not quite like any note.
    pub(super) fn queries(mut self, user: usize, count: usize) -> Vec<Vec<f32>> {
        self.random = Rng::with_seed(2);
        (0..count).map(|_| self.draw(user, 1.0)).collect()
    }

    fn draw(&mut self, user: usize, spread: f32) -> Vec<f32> {
        let topic = (user * 37 + self.random.usize(..TOPICS_OF_A_USER) * 11) % TOPICS;
        let latent = sum(&self.topics[topic], &normal(&mut self.random, spread));
        let random = &mut self.random;
        let along = |row: &[f32; LATENT]| row.iter().zip(&latent).map(|(a, b)| a * b).sum::<f32>();
        let mut vector: Vec<f32> =
            self.projection.iter().map(|row| along(row) + gauss(random) * 0.3).collect();
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        for number in &mut vector {
            *number /= length;
        }
        vector
    }
}

fn normal(random: &mut Rng, spread: f32) -> [f32; LATENT] {
    std::array::from_fn(|_| gauss(random) * spread)
}

fn sum(a: &[f32; LATENT], b: &[f32; LATENT]) -> [f32; LATENT] {
    std::array::from_fn(|at| a[at] + b[at])
}

/// Near enough to a normal distribution: a sum of uniform ones.
fn gauss(random: &mut Rng) -> f32 {
    (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
}
