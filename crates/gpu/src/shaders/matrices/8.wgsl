// Small matrices of 8 times 8 numbers.

const SIDE: u32 = 8u;

alias Inputs = coop_mat8x8<f16, A>;
alias Weights = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
