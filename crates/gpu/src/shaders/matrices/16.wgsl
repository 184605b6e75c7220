// Small matrices of 16 times 16 numbers.

const SIDE: u32 = 16u;

alias Inputs = coop_mat16x16<f16, A>;
alias Weights = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
