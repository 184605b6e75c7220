//! Which tensors stay in memory, where not all of them can.

use crate::model::weights::MatrixRole;

/// Where a tensor's bytes are while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In memory, all the time.
    Resident,
    /// Leading rows in memory, as many as there was room for; the others are swapped in.
    Split {
        /// Those in memory.
        n_resident: u64,
    },
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
            Placement::Split { .. } => "split",
            Placement::Streamed => "streamed",
            Placement::ByRow => "by row",
        }
    }
}

/// Shares `capacity` between matrices, given with their bytes. Returns the room of each: all that it takes, nothing, or, of
/// one, what is left.
///
/// Any byte that is not resident costs the same to read, so it matters little which they are, but that reading goes on
/// while resident matrices are used, as far as there are slots. So what stays is spread evenly, first a matrix of each
/// layer, then another of each, and last the head. The order in which matrices become resident does not depend on the
/// capacity: with more, none has less room. Of experts and of the token embedding a pass uses a part: they are not for
/// this to choose.
pub(crate) fn share(matrices: &[(MatrixRole, u64)], capacity: u64) -> Vec<u64> {
    share_in(order(matrices.iter().map(|(role, _)| *role)), matrices, capacity)
}

/// The same on a device that looks up the token embedding, too: that comes before all.
pub(crate) fn share_on_device(matrices: &[(MatrixRole, u64)], capacity: u64) -> Vec<u64> {
    let roles = matrices.iter().map(|(role, _)| *role);
    let embedding = roles.clone().enumerate().filter(|(_, role)| *role == MatrixRole::Embedding);
    share_in(embedding.map(|(i, _)| i).chain(order(roles)), matrices, capacity)
}

/// Gives each matrix, in this order, what it takes or what is left.
fn share_in(order: impl Iterator<Item = usize>, matrices: &[(MatrixRole, u64)], capacity: u64) -> Vec<u64> {
    let mut rooms = vec![0; matrices.len()];
    let mut left = capacity;
    for i in order {
        rooms[i] = matrices[i].1.min(left);
        left -= rooms[i];
    }
    rooms
}

/// The numbers of the matrices that may become resident, in the order in which they do.
fn order(roles: impl Iterator<Item = MatrixRole> + Clone) -> impl Iterator<Item = usize> {
    let layer = |role| if let MatrixRole::Layer(layer) = role { Some(layer + 1) } else { None };
    let n_layers = roles.clone().filter_map(layer).max().unwrap_or(0);
    let mut n_seen = vec![0; n_layers];
    let ranked = roles.enumerate().filter_map(|(i, role)| match role {
        MatrixRole::Layer(layer) => {
            n_seen[layer] += 1;
            Some(((n_seen[layer], spread(layer, n_layers)), i))
        }
        MatrixRole::Head => Some(((usize::MAX, 0), i)),
        MatrixRole::Experts(_) | MatrixRole::Embedding => None,
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

    fn matrices(n_layers: usize) -> Vec<(MatrixRole, u64)> {
        let mut matrices = vec![(MatrixRole::Embedding, 50)];
        matrices.extend(
            (0..n_layers).flat_map(|layer| [(MatrixRole::Layer(layer), 7), (MatrixRole::Experts(layer), 20)]),
        );
        matrices.push((MatrixRole::Head, 50));
        matrices
    }

    #[test]
    fn all_room_is_shared_and_more_of_it_never_costs_a_matrix_any() {
        let matrices = matrices(13);
        let chosen = |role| matches!(role, MatrixRole::Layer(_) | MatrixRole::Head);
        let total = matrices.iter().filter(|(role, _)| chosen(*role)).map(|(_, bytes)| bytes).sum();
        let mut before = vec![0; matrices.len()];
        for capacity in 0..=total + 1 {
            let rooms = share(&matrices, capacity);
            assert_eq!(rooms.iter().sum::<u64>(), capacity.min(total));
            assert!(rooms.iter().zip(&matrices).all(|(room, (_, bytes))| room <= bytes));
            assert!(before.iter().zip(&rooms).all(|(before, now)| now >= before), "at {capacity}");
            before = rooms;
        }
        let all = matrices.iter().map(|(role, bytes)| if chosen(*role) { *bytes } else { 0 });
        assert!(before.into_iter().eq(all));
    }

    #[test]
    fn what_stays_is_spread_over_the_model() {
        // Two of each layer.
        let matrices: Vec<_> = (0..32).map(|i| (MatrixRole::Layer(i / 2), 1)).collect();
        let resident = |capacity| -> Vec<usize> {
            let rooms = share(&matrices, capacity).into_iter().enumerate();
            rooms.filter(|(_, room)| *room == 1).map(|(i, _)| i).collect()
        };
        assert_eq!(resident(4), [0, 8, 16, 24]);
        assert_eq!(resident(16), (0..16).map(|layer| 2 * layer).collect::<Vec<_>>());
        assert_eq!(resident(18), [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 20, 22, 24, 26, 28, 30]);
    }

    #[test]
    fn what_is_left_goes_to_a_part_of_the_next() {
        assert_eq!(share(&matrices(2), 10), [0, 7, 0, 3, 0, 0]);
        assert_eq!(share(&matrices(2), 30), [0, 7, 0, 7, 0, 16]);
    }
}
