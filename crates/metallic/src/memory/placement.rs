//! Which tensors stay in memory, where not all of them can.

/// Where a tensor's bytes are while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In memory, all the time.
    Resident,
    /// In the file. Swapped in a chunk at a time, whenever it is used.
    Streamed,
    /// In the file. The rows that are asked for are read one by one.
    ByRow,
}

impl Placement {
    /// Lower-case name, as tables and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            Placement::Resident => "resident",
            Placement::Streamed => "streamed",
            Placement::ByRow => "by row",
        }
    }
}

/// What a matrix is used for, as far as its placement depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of a layer: used in every pass.
    Layer(usize),
    /// Of a layer's experts: a part is used in every pass, and stays by use.
    Experts(usize),
    /// The output head: used where logits are wanted.
    Head,
    /// The token embedding alone: a row a token.
    Embedding,
}

/// Chooses for each matrix, given with its bytes, so that the resident ones take at most `capacity`.
///
/// Any byte that is not resident costs the same to read, so it matters little which they are, but that reading goes on
/// while resident matrices are used, as far as there are slots. So what stays is spread evenly, first a matrix of each
/// layer, then another of each, and last the head. The order in which matrices become resident does not depend on the
/// capacity: with more, none is lost. Of experts and of the token embedding a pass uses a part: they are not for this
/// to choose.
pub(crate) fn place(matrices: &[(Role, u64)], capacity: u64) -> Vec<Placement> {
    let unchosen = |role| if role == Role::Embedding { Placement::ByRow } else { Placement::Streamed };
    let mut placements: Vec<Placement> = matrices.iter().map(|(role, _)| unchosen(*role)).collect();
    let mut left = capacity;
    for i in order(matrices.iter().map(|(role, _)| *role)) {
        let Some(rest) = left.checked_sub(matrices[i].1) else { break };
        (placements[i], left) = (Placement::Resident, rest);
    }
    placements
}

/// The numbers of the matrices that may become resident, in the order in which they do.
fn order(roles: impl Iterator<Item = Role> + Clone) -> impl Iterator<Item = usize> {
    let layer = |role| if let Role::Layer(layer) = role { Some(layer + 1) } else { None };
    let n_layers = roles.clone().filter_map(layer).max().unwrap_or(0);
    let mut n_seen = vec![0; n_layers];
    let ranked = roles.enumerate().filter_map(|(i, role)| match role {
        Role::Layer(layer) => {
            n_seen[layer] += 1;
            Some(((n_seen[layer], spread(layer, n_layers)), i))
        }
        Role::Head => Some(((usize::MAX, 0), i)),
        Role::Experts(_) | Role::Embedding => None,
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, i)| i)
}

/// The place of a layer in an order of which every beginning is spread evenly: its number with the bits reversed
/// (van der Corput 1935).
fn spread(layer: usize, n_layers: usize) -> usize {
    let n_bits = n_layers.next_power_of_two().trailing_zeros();
    layer.reverse_bits().checked_shr(usize::BITS - n_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrices(n_layers: usize) -> Vec<(Role, u64)> {
        let mut matrices = vec![(Role::Embedding, 50)];
        matrices
            .extend((0..n_layers).flat_map(|layer| [(Role::Layer(layer), 7), (Role::Experts(layer), 20)]));
        matrices.push((Role::Head, 50));
        matrices
    }

    #[test]
    fn more_room_never_costs_a_resident_matrix_and_is_never_exceeded() {
        let matrices = matrices(13);
        let total: u64 = matrices.iter().map(|(_, bytes)| bytes).sum();
        let mut before = vec![false; matrices.len()];
        for capacity in 0..=total {
            let resident: Vec<bool> =
                place(&matrices, capacity).into_iter().map(|place| place == Placement::Resident).collect();
            let bytes: u64 = matrices.iter().zip(&resident).filter(|(_, r)| **r).map(|((_, b), _)| b).sum();
            assert!(bytes <= capacity);
            assert!(before.iter().zip(&resident).all(|(before, now)| now >= before), "at {capacity}");
            before = resident;
        }
        let chosen = |role| matches!(role, Role::Layer(_) | Role::Head);
        assert!(matrices.iter().zip(before).all(|((role, _), resident)| resident == chosen(*role)));
    }

    #[test]
    fn what_stays_is_spread_over_the_model() {
        // Two of each layer.
        let matrices: Vec<_> = (0..32).map(|i| (Role::Layer(i / 2), 1)).collect();
        let resident = |capacity| -> Vec<usize> {
            let places = place(&matrices, capacity).into_iter().enumerate();
            places.filter(|(_, place)| *place == Placement::Resident).map(|(i, _)| i).collect()
        };
        assert_eq!(resident(4), [0, 8, 16, 24]);
        assert_eq!(resident(16), (0..16).map(|layer| 2 * layer).collect::<Vec<_>>());
        assert_eq!(resident(18), [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 20, 22, 24, 26, 28, 30]);
    }

    #[test]
    fn what_no_room_is_left_for_is_read_as_it_is_used() {
        let places = place(&matrices(2), 14);
        use Placement::{ByRow, Resident, Streamed};
        assert_eq!(places, [ByRow, Resident, Streamed, Resident, Streamed, Streamed]);
    }
}
