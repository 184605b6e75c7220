// Activations: `ACTIVATION` is the number of one, see `activation_number` in `backend/elementwise.rs`.

override ACTIVATION: u32;

// The error function to 1.5e-7 (Abramowitz and Stegun 1964, formula 7.1.26).
fn error_function(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = ((((1.0614054 * t - 1.453152) * t + 1.4214138) * t - 0.28449674) * t + 0.2548296) * t;
    return sign(x) * (1.0 - p * exponential(-a * a));
}

fn activation(x: f32) -> f32 {
    switch ACTIVATION {
        case 0u: { return x * sigmoid(x); }
        // (1 + tanh u) / 2 is a sigmoid of 2u.
        case 1u: { return x * sigmoid(2.0 * 0.7978846 * x * (1.0 + 0.044715 * x * x)); }
        case 2u: { return 0.5 * x * (1.0 + error_function(x * 0.70710678)); }
        case 3u: { return max(x, 0.0); }
        case 4u: { return max(x, 0.0) * max(x, 0.0); }
        case 5u: { return sigmoid(x); }
        case 7u: { return min(x, 7.0) * sigmoid(1.702 * min(x, 7.0)); }
        default: { return x; }
    }
}

// What a gate makes of a value.
fn gated(gate: f32, up: f32) -> f32 {
    if ACTIVATION == 7u {
        return activation(gate) * (clamp(up, -7.0, 7.0) + 1.0);
    }
    return activation(gate) * up;
}
