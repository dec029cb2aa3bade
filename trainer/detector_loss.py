"""What a face weighs in the detector's loss of boxes.

In ultralytics' every place of the grid that is assigned to a face weighs by how well its box fits, and small faces have fewer places
that fit worse: on 48 training pictures a face of 64 to 128 pixels weighs 7.2, one of 16 to 24 pixels 4.5, of 8 to 16 pixels 1.8. In AP
each counts once.
"""

from __future__ import annotations

import torch

from engines.silent import import_silently

FULL_PX = 16.0
"""Longer side from which a face weighs in full. Of smaller ones the label itself is a pixel off; they weigh by their side."""
LEAST = 0.25


class EqualFacesLoss(import_silently("ultralytics.utils.loss").BboxLoss):  # type: ignore[misc]
    """Ultralytics' loss of boxes (CIoU and distribution focal loss), in which a face weighs as much as any other."""

    def forward(
        self, pred_dist: torch.Tensor, pred_bboxes: torch.Tensor, anchor_points: torch.Tensor, target_bboxes: torch.Tensor,
        target_scores: torch.Tensor, target_scores_sum: torch.Tensor, fg_mask: torch.Tensor, imgsz: torch.Tensor, stride: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """As the base class: `target_bboxes` (B, A, 4) xyxy in cells of `stride` (A, 1) pixels, `target_scores` (B, A, 1)."""
        weights = equal_weights(target_scores, target_bboxes * stride, fg_mask)
        return super().forward(
            pred_dist, pred_bboxes, anchor_points, target_bboxes, weights, target_scores_sum, fg_mask, imgsz, stride
        )


@torch.no_grad()
def equal_weights(weights: torch.Tensor, boxes: torch.Tensor, assigned: torch.Tensor) -> torch.Tensor:
    """(B, A, 1) weights of the places of a grid -> (B, A, 1), of the same sum, shared out equally among faces.

    boxes (B, A, 4): the face of each place, xyxy in pixels, by which its places are known; assigned (B, A) bool: where there is one.
    """
    where = assigned.nonzero(as_tuple=True)
    shared = torch.zeros_like(weights)
    if not len(where[0]):
        return shared
    own, faces = weights[where].sum(-1).float(), boxes[where]
    # Quarters of a pixel: the same box comes back from strides of 8, 16 and 32.
    keys = torch.cat((where[0][:, None], (faces * 4).round().long()), 1)
    _, face = torch.unique(keys, dim=0, return_inverse=True)
    total = torch.zeros(int(face.max()) + 1, device=own.device).index_add_(0, face, own)
    side = (faces[:, 2:] - faces[:, :2]).amax(1)
    equal = own / total[face].clamp(min=1e-6) * (side / FULL_PX).clamp(LEAST, 1)
    shared[where] = (equal * (own.sum() / equal.sum()))[:, None].to(shared.dtype)
    return shared
